// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The decoder's memory of one row: which sequence it attends to, and the keys and values of the tokens so far.
///
/// Keys and values lie in pages of a few tokens. A copy shares its pages with the original; whoever next writes into a
/// shared page copies that one page first. So forking a row for beam search costs a list of references.
///
/// A cache belongs to one thread at a time.
public final class DecoderCache {
    /// The encoded sequence that the row attends to.
    public let sequence: EncodedSequence

    /// Number of tokens so far.
    public private(set) var length = 0

    private let blockCount: Int
    private let innerWidth: Int
    private var pages: [Page] = []

    /// Creates an empty cache.
    ///
    /// - Parameter sequence: The encoded sequence that the row attends to.
    public init(_ sequence: EncodedSequence) {
        self.sequence = sequence
        self.blockCount = sequence.crossKeys.count
        self.innerWidth = sequence.crossKeys.first?.columns ?? 0
    }

    private init(copying other: DecoderCache) {
        self.sequence = other.sequence
        self.length = other.length
        self.blockCount = other.blockCount
        self.innerWidth = other.innerWidth
        self.pages = other.pages
    }

    /// A cache with the same tokens, which goes its own way from here on.
    ///
    /// - Returns: The copy.
    public func fork() -> DecoderCache {
        DecoderCache(copying: self)
    }

    /// Bytes of the keys and values, pages shared with other caches included.
    public var byteCount: Int {
        self.pages.count * Page.elements(blocks: self.blockCount, width: self.innerWidth) * MemoryLayout<Float>.stride
    }

    // MARK: - For the decoder

    /// Keys and values of consecutive tokens that lie together; row `t` starts `t * innerWidth` floats on.
    struct Run {
        let start: Int
        let count: Int
        let keys: UnsafePointer<Float>
        let values: UnsafePointer<Float>
    }

    /// Makes room for tokens from `length` on, in pages that nobody else sees.
    func reserve(_ count: Int) {
        let used = self.length % Page.tokens
        if used > 0, !isKnownUniquelyReferenced(&self.pages[self.pages.count - 1]) {
            let shared = self.pages[self.pages.count - 1]
            let own = Page(blocks: self.blockCount, width: self.innerWidth)
            own.copy(shared, tokens: used, blocks: self.blockCount, width: self.innerWidth)
            self.pages[self.pages.count - 1] = own
        }
        while self.pages.count * Page.tokens < self.length + count {
            self.pages.append(Page(blocks: self.blockCount, width: self.innerWidth))
        }
    }

    /// Writes one token's keys and values; `reserve` has made room.
    func store(
        keys: UnsafeMutableBufferPointer<Float>,
        values: UnsafeMutableBufferPointer<Float>,
        block: Int,
        position: Int
    ) {
        guard let keys = keys.baseAddress, let values = values.baseAddress else {
            return
        }
        let page = self.pages[position / Page.tokens]
        let row = (position % Page.tokens) * self.innerWidth
        let base = page.start(block: block, width: self.innerWidth)
        (base + row).update(from: keys, count: self.innerWidth)
        (base + Page.tokens * self.innerWidth + row).update(from: values, count: self.innerWidth)
    }

    /// The keys and values of one block for the first `count` tokens.
    func runs(block: Int, count: Int) -> [Run] {
        var runs: [Run] = []
        var start = 0
        while start < count {
            let base = UnsafePointer(self.pages[start / Page.tokens].start(block: block, width: self.innerWidth))
            let taken = min(Page.tokens, count - start)
            runs.append(
                Run(start: start, count: taken, keys: base, values: base + Page.tokens * self.innerWidth)
            )
            start += taken
        }
        return runs
    }

    /// Takes over tokens that have been stored for every block.
    func advance(by count: Int) {
        self.length += count
    }

    // MARK: - Pages

    /// Keys and values of some tokens, as `[block][keys, values][token][heads * d_kv]`.
    private final class Page {
        /// Tokens in a page.
        static let tokens = 16

        private let pointer: UnsafeMutablePointer<Float>

        init(blocks: Int, width: Int) {
            self.pointer = .allocate(capacity: max(Page.elements(blocks: blocks, width: width), 1))
        }

        deinit {
            self.pointer.deallocate()
        }

        static func elements(blocks: Int, width: Int) -> Int {
            blocks * 2 * Page.tokens * width
        }

        func start(block: Int, width: Int) -> UnsafeMutablePointer<Float> {
            self.pointer + block * 2 * Page.tokens * width
        }

        func copy(_ other: Page, tokens: Int, blocks: Int, width: Int) {
            for half in 0..<(2 * blocks) {
                let offset = half * Page.tokens * width
                (self.pointer + offset).update(from: other.pointer + offset, count: tokens * width)
            }
        }
    }
}
