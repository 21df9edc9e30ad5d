// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// The decoder's memory of one row: which sequence it attends to, and the keys and values of the tokens so far.
///
/// Keys and values lie in pages of a few tokens. A copy shares its pages with the original; the next write into a
/// shared page copies that one page first. So forking a row for beam search costs a list of references.
///
/// A cache belongs to one thread at a time.
public final class DecoderCache {
    /// The encoded sequence that the row attends to; nil in a model without an encoder.
    public let sequence: EncodedSequence?

    /// Number of tokens so far.
    public private(set) var length = 0

    let blockCount: Int
    let headCount: Int
    let keyWidth: Int
    /// How keys and values are kept.
    let type: DType
    private var pages: [Page] = []
    /// Where each page begins.
    private var addresses: [UnsafeRawPointer?] = []

    /// Creates an empty cache.
    ///
    /// - Parameter sequence: The encoded sequence that the row attends to.
    public init(_ sequence: EncodedSequence) {
        self.sequence = sequence
        self.blockCount = sequence.crossKeys.count
        self.headCount = sequence.headCount
        self.keyWidth = sequence.crossKeys.first?.columns ?? 0
        self.type = sequence.crossKeys.first?.type ?? .float32
    }

    /// Creates an empty cache for a model without an encoder.
    ///
    /// - Parameter model: The model.
    public init(_ model: SwitchTransformer) {
        self.sequence = nil
        self.blockCount = model.decoderBlocks.count
        self.headCount = model.configuration.headCount
        self.keyWidth = model.configuration.keyWidth
        self.type = model.cacheType
    }

    private init(copying other: DecoderCache) {
        self.sequence = other.sequence
        self.length = other.length
        self.blockCount = other.blockCount
        self.headCount = other.headCount
        self.keyWidth = other.keyWidth
        self.type = other.type
        self.pages = other.pages
        self.addresses = other.addresses
    }

    /// A cache with the same tokens, independent from here on.
    ///
    /// - Returns: The copy.
    public func fork() -> DecoderCache {
        DecoderCache(copying: self)
    }

    /// Bytes of the keys and values, pages shared with other caches included.
    public var byteCount: Int {
        self.pages.reduce(0) { $0 + $1.byteCount }
    }

    // MARK: - For the decoder

    /// Makes room for tokens from `length` on, in unshared pages.
    func reserve(_ count: Int) {
        let used = self.length % Page.tokens
        if used > 0, !isKnownUniquelyReferenced(&self.pages[self.pages.count - 1]) {
            let shared = self.pages[self.pages.count - 1]
            let own = self.newPage()
            own.copy(shared, tokens: used)
            self.pages[self.pages.count - 1] = own
            self.addresses[self.pages.count - 1] = UnsafeRawPointer(own.rows.address(row: 0))
        }
        while self.pages.count * Page.tokens < self.length + count {
            let page = self.newPage()
            self.pages.append(page)
            self.addresses.append(UnsafeRawPointer(page.rows.address(row: 0)))
        }
    }

    private func newPage() -> Page {
        Page(blocks: self.blockCount, heads: self.headCount, width: self.keyWidth, type: self.type)
    }

    /// Writes one token's key and value of one head; `reserve` has made room.
    func store(
        keys: UnsafePointer<Float>,
        values: UnsafePointer<Float>,
        block: Int,
        head: Int,
        position: Int
    ) {
        let rows = self.pages[position / Page.tokens].rows
        let token = position % Page.tokens
        rows.write(keys, row: Page.row(.keys, block: block, head: head, of: self.headCount) + token)
        rows.write(values, row: Page.row(.values, block: block, head: head, of: self.headCount) + token)
    }

    /// Lends one head's keys and values of one block.
    func withHead(_ head: Int, block: Int, _ body: (KeptHead) -> Void) {
        let bytes = self.keyWidth * self.type.byteCount
        self.addresses.withUnsafeBufferPointer { pages in
            guard let first = pages.baseAddress else { return }
            body(
                KeptHead(
                    keyPages: first,
                    valuePages: first,
                    keyOffset: Page.row(.keys, block: block, head: head, of: self.headCount) * bytes,
                    valueOffset: Page.row(.values, block: block, head: head, of: self.headCount) * bytes,
                    pageTokens: Page.tokens,
                    type: self.type,
                    width: self.keyWidth
                )
            )
        }
    }

    /// Takes over tokens that have been stored for every block.
    func advance(by count: Int) {
        self.length += count
    }

    // MARK: - Pages

    /// Keys and values of some tokens, as `[block][keys, values][head][token][d_kv]`.
    private final class Page {
        /// Tokens in a page.
        static let tokens = 16

        enum Half: Int {
            case keys
            case values
        }

        let rows: TypedRows

        init(blocks: Int, heads: Int, width: Int, type: DType) {
            self.rows = TypedRows(uninitializedRows: blocks * 2 * heads * Page.tokens, columns: width, type: type)
        }

        var byteCount: Int { self.rows.byteCount }

        /// The row of a head's first token.
        static func row(_ half: Half, block: Int, head: Int, of heads: Int) -> Int {
            ((block * 2 + half.rawValue) * heads + head) * Page.tokens
        }

        /// Copies the first tokens of every head.
        func copy(_ other: Page, tokens: Int) {
            let bytes = tokens * self.rows.columns * self.rows.type.byteCount
            for first in stride(from: 0, to: self.rows.rows, by: Page.tokens) {
                self.rows.address(row: first).copyMemory(from: other.rows.address(row: first), byteCount: bytes)
            }
        }
    }
}
