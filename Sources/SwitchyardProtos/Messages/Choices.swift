// SPDX-License-Identifier: Apache-2.0

/// One of the two halves of the model.
///
/// An unknown number is an error where it is read.
public enum Stack: UInt32, ProtoChoice, Sendable, Hashable, CaseIterable {
    /// Not given; refused where a stack is needed.
    case unspecified = 0
    /// The encoder.
    case encoder = 1
    /// The decoder.
    case decoder = 2
}

/// How the elements of a tensor are stored; always little-endian.
///
/// An unknown number is an error where it is read.
public enum DType: UInt32, ProtoChoice, Sendable, Hashable, CaseIterable {
    /// Not given; refused where a tensor has data.
    case unspecified = 0
    /// IEEE 754 binary32.
    case float32 = 1
    /// The upper half of a binary32.
    case bfloat16 = 2
    /// IEEE 754 binary16.
    case float16 = 3
    /// Eight-bit integers with a scale for each row of a matrix; how weights are kept, never how a tensor is sent.
    case int8 = 4

    /// The bytes of one element, or nothing where the type is not given or is no tensor's.
    public var byteCount: Int? {
        switch self {
        case .unspecified, .int8: nil
        case .float32: 4
        case .bfloat16, .float16: 2
        }
    }

    /// The type as the commands' flags and reports write it; nothing where it is not given.
    public var name: String? {
        switch self {
        case .unspecified: nil
        case .float32: "float32"
        case .bfloat16: "bfloat16"
        case .float16: "float16"
        case .int8: "int8"
        }
    }
}

/// How hidden states become the answer.
///
/// An unknown number is an error where it is read.
public enum Pooling: UInt32, ProtoChoice, Sendable, Hashable, CaseIterable {
    /// As they are: one row per token.
    case perToken = 0
    /// The mean over all tokens, the end-of-sequence token included: one row.
    case mean = 1
}

/// Why a token went on without an expert's output.
///
/// An unknown number is read as `unspecified`.
public enum DropReason: UInt32, Sendable, Hashable, CaseIterable {
    /// Not given.
    case unspecified = 0
    /// The expert had as many tokens of the sequence as its capacity allows.
    case capacity = 1
    /// No reply came before the layer's deadline.
    case timeout = 2
    /// No host that holds the expert could be reached.
    case unavailable = 3
    /// The hosts that hold the expert refused more work.
    case overloaded = 4
    /// A host's reply had the wrong shape, the wrong size or values that are not finite.
    case badReply = 5
}

/// Why a sequence ended.
///
/// An unknown number is read as `unspecified`.
public enum FinishReason: UInt32, Sendable, Hashable, CaseIterable {
    /// Not given.
    case unspecified = 0
    /// The model generated its end-of-sequence token.
    case endOfSequence = 1
    /// As many tokens as were asked for were generated.
    case length = 2
    /// One of the stop texts appeared.
    case stop = 3
}

/// What the gateway thinks of an expert host.
///
/// An unknown number is read as `unspecified`.
public enum ReplicaState: UInt32, Sendable, Hashable, CaseIterable {
    /// Not given.
    case unspecified = 0
    /// No connection.
    case disconnected = 1
    /// Connected; what it holds is not known yet.
    case unverified = 2
    /// Connected, holds what it should, takes work.
    case ready = 3
    /// Failed too often; gets no work before a probe succeeds.
    case ejected = 4
    /// Finishes what it has.
    case draining = 5
    /// Holds another model or the wrong experts.
    case mismatched = 6
}

// MARK: - Names for code that also imports the model's wing, which has its own types of these names

/// The wire form of a stack.
public typealias StackMessage = Stack
/// The wire form of a drop reason.
public typealias DropReasonMessage = DropReason
/// The wire form of a finish reason.
public typealias FinishReasonMessage = FinishReason
/// The wire form of an expert's rows.
public typealias ExpertRowsMessage = ExpertRows
/// The wire form of the parameters of generation.
public typealias GenerationParametersMessage = GenerationParameters
