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
    private let headCount: Int
    private let keyWidth: Int
    /// Elements of all heads' keys of one token.
    private let innerWidth: Int
    private var pages: [Page] = []

    /// Creates an empty cache.
    ///
    /// - Parameter sequence: The encoded sequence that the row attends to.
    public init(_ sequence: EncodedSequence) {
        self.sequence = sequence
        self.blockCount = sequence.crossKeys.count
        self.headCount = sequence.headCount
        self.keyWidth = sequence.crossKeys.first?.columns ?? 0
        self.innerWidth = self.headCount * self.keyWidth
    }

    private init(copying other: DecoderCache) {
        self.sequence = other.sequence
        self.length = other.length
        self.blockCount = other.blockCount
        self.headCount = other.headCount
        self.keyWidth = other.keyWidth
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

    /// One head's keys and values of consecutive tokens, which lie together: token `t` starts `t * keyWidth` floats on.
    struct Run {
        /// The first token's position.
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
            own.copy(shared, tokens: used, keyWidth: self.keyWidth)
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
        var target = page.start(block: block, width: self.innerWidth) + (position % Page.tokens) * self.keyWidth
        for head in 0..<self.headCount {
            target.update(from: keys + head * self.keyWidth, count: self.keyWidth)
            (target + Page.tokens * self.innerWidth).update(from: values + head * self.keyWidth, count: self.keyWidth)
            target += Page.tokens * self.keyWidth
        }
    }

    /// Number of runs that the first `count` tokens lie in.
    func runCount(tokens count: Int) -> Int {
        (count + Page.tokens - 1) / Page.tokens
    }

    /// One run of one head of one block.
    ///
    /// - Parameters:
    ///   - index: Which run, below `runCount(tokens:)`.
    ///   - block: The decoder block.
    ///   - head: The head.
    ///   - count: Tokens that are asked for, in all runs.
    /// - Returns: The run.
    func run(_ index: Int, block: Int, head: Int, tokens count: Int) -> Run {
        let start = index * Page.tokens
        let keys = self.pages[index].start(block: block, width: self.innerWidth) + head * Page.tokens * self.keyWidth
        return Run(
            start: start,
            count: min(Page.tokens, count - start),
            keys: UnsafePointer(keys),
            values: UnsafePointer(keys + Page.tokens * self.innerWidth)
        )
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

        private let memory: FloatMatrix

        init(blocks: Int, width: Int) {
            self.memory = FloatMatrix(uninitializedRows: 1, columns: Page.elements(blocks: blocks, width: width))
        }

        static func elements(blocks: Int, width: Int) -> Int {
            blocks * 2 * Page.tokens * width
        }

        func start(block: Int, width: Int) -> UnsafeMutablePointer<Float> {
            self.memory.pointer + block * 2 * Page.tokens * width
        }

        /// Copies the first tokens of every head.
        func copy(_ other: Page, tokens: Int, keyWidth: Int) {
            let head = Page.tokens * keyWidth
            for offset in stride(from: 0, to: self.memory.columns, by: max(head, 1)) {
                (self.memory.pointer + offset).update(from: other.memory.pointer + offset, count: tokens * keyWidth)
            }
        }
    }
}
