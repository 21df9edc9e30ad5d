// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import SwitchyardTypes
internal import TensorKernels

/// A place in the model that draws random numbers.
struct RandomSite {
    enum Kind: UInt32 {
        case embedding = 1
        case selfAttention
        case crossAttention
        case selfAttentionWeights
        case crossAttentionWeights
        case inner
        case feedForward
        case final
        case jitter
        /// Which tokens take the places of an expert that is chosen by too many.
        case places
    }

    var kind: Kind
    var stack: Stack
    var block: Int
}

/// The random numbers of one step: a function of seed, step, site, sequence, position and column.
///
/// They depend on neither the split of a step into parts nor the threads. The generator is Philox4x32-10 twice: the key of
/// a site is a block whose counter is (kind, stack, block, step) under the seed; the numbers' blocks have the counters
/// (column, position, sequence, head) under that key.
struct StepRandomness {
    var seed: UInt64
    var step: UInt32

    func key(_ site: RandomSite) -> (UInt32, UInt32) {
        let counter = [site.kind.rawValue, UInt32(site.stack.rawValue), UInt32(site.block), self.step]
        let key = [UInt32(truncatingIfNeeded: self.seed), UInt32(truncatingIfNeeded: self.seed >> 32)]
        var block = [UInt32](repeating: 0, count: 4)
        ck_philox(counter, key, &block)
        return (block[0], block[1])
    }
}

/// Dropout at one site (Srivastava et al., "Dropout", 2014): elements become 0 with a probability, the others grow so that
/// the mean stays.
///
/// The probability is a multiple of 1/65536. Masks are drawn again for the backward pass, not kept.
struct Dropout {
    /// A half-word below this drops its element.
    let threshold: UInt32
    let keepScale: Float
    private let key: (UInt32, UInt32)
    private let level: KernelLevel

    /// Dropout at a site; nil where nothing is dropped.
    init?(rate: Double, site: RandomSite, randomness: StepRandomness?, level: KernelLevel) {
        let threshold = UInt32((rate * 65_536).rounded())
        guard let randomness, threshold > 0 else { return nil }
        self.threshold = threshold
        self.keepScale = Float(1 / (1 - Double(threshold) / 65_536))
        self.key = randomness.key(site)
        self.level = level
    }

    /// Drops elements of one row.
    func apply(
        _ row: UnsafeMutablePointer<Float>,
        count: Int,
        place: (sequence: Int, position: Int),
        head: Int = 0
    ) {
        let counter = [UInt32(place.position), UInt32(place.sequence), UInt32(head)]
        ck_dropout(self.level.rawValue, row, count, self.threshold, self.keepScale, counter, [self.key.0, self.key.1])
    }

    /// Drops elements of all rows.
    func apply(_ rows: Rows, _ sequences: SequenceRows, pool: WorkPool) {
        WorkPool.share(rows.count, width: rows.columns * 4, among: pool) { range in
            for row in range {
                self.apply(rows.row(row), count: rows.columns, place: sequences.place(row))
            }
        }
    }

    /// Describes the dropout of one head's probabilities to the attention kernel.
    func describe(to attention: inout ck_attention, sequence: Int, head: Int) {
        attention.threshold = self.threshold
        attention.keep_scale = self.keepScale
        attention.counter = (0, UInt32(sequence), UInt32(head))
        attention.key = self.key
    }
}

/// The noise that routers' inputs are multiplied with: uniform within `1 - epsilon ..< 1 + epsilon`.
struct Jitter {
    private let epsilon: Float
    private let key: (UInt32, UInt32)
    private let level: KernelLevel

    /// Jitter of a layer; nil where there is none.
    init?(epsilon: Double, layer: SparseLayer, randomness: StepRandomness?, level: KernelLevel) {
        guard let randomness, epsilon > 0 else { return nil }
        self.epsilon = Float(epsilon)
        self.key = randomness.key(RandomSite(kind: .jitter, stack: layer.stack, block: layer.block))
        self.level = level
    }

    /// Multiplies one row, with the same noise whenever it is called.
    func apply(
        _ row: UnsafePointer<Float>,
        count: Int,
        place: (sequence: Int, position: Int),
        into output: UnsafeMutablePointer<Float>
    ) {
        let counter = [UInt32(place.position), UInt32(place.sequence), 0]
        ck_jitter(self.level.rawValue, row, count, self.epsilon, counter, [self.key.0, self.key.1], output)
    }
}
