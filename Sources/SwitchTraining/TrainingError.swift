// SPDX-License-Identifier: Apache-2.0

/// A fault in what training was given, or in what came of it.
///
/// The message names what is wrong, the limit and the value found, and what to do next.
public struct TrainingError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong, as a value that programs can compare.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Kind: String, Sendable, Hashable {
            case unsupported
            case limitExceeded
            case invalidBatch
            case invalidSettings
            case notFinite
            case noExperts
            case voidStep
        }

        private let kind: Kind

        /// A name for logs.
        public var description: String { self.kind.rawValue }

        /// The model is valid, but cannot be trained here.
        public static let unsupported = Self(kind: .unsupported)
        /// A size is over a limit that protects memory.
        public static let limitExceeded = Self(kind: .limitExceeded)
        /// A batch holds something that the model cannot learn from.
        public static let invalidBatch = Self(kind: .invalidBatch)
        /// A setting is out of range.
        public static let invalidSettings = Self(kind: .invalidSettings)
        /// A loss or a gradient is an infinity or not a number.
        public static let notFinite = Self(kind: .notFinite)
        /// Experts that are computed elsewhere gave no answer.
        public static let noExperts = Self(kind: .noExperts)
        /// What experts elsewhere answered in a step cannot be trusted, time after time.
        public static let voidStep = Self(kind: .voidStep)
    }

    /// What went wrong.
    public var code: Code

    /// What is wrong and what to do next.
    public var message: String

    /// Describes a failure.
    ///
    /// - Parameters:
    ///   - code: What went wrong.
    ///   - message: What is wrong and what to do next.
    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    /// The message.
    public var description: String { self.message }
}
