// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// A fault in a checkpoint, its configuration, one of its parts or the place for it.
///
/// The message names the file and the tensor or field, the limit and the value found, and what to do next.
public struct CheckpointError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong, as a value that programs can compare.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Kind: String, Sendable, Hashable {
            case notFound
            case unreadable
            case malformed
            case limitExceeded
            case unsupported
            case otherFamily
            case refusedGlobal
            case invalidConfiguration
            case unknownOverride
            case missingTensor
            case unknownTensor
            case wrongShape
            case wrongDType
            case conflictingTensors
            case notFinite
            case fingerprintMismatch
            case outputExists
            case writeFailed
            case invalidArgument
        }

        private let kind: Kind

        /// A name for logs.
        public var description: String { self.kind.rawValue }

        /// A file, folder or hub model does not exist where it was looked for.
        public static let notFound = Self(kind: .notFound)
        /// The system refused to open, map or read a file.
        public static let unreadable = Self(kind: .unreadable)
        /// A file breaks the rules of its format.
        public static let malformed = Self(kind: .malformed)
        /// A length or count is over a limit that protects memory.
        public static let limitExceeded = Self(kind: .limitExceeded)
        /// A file or configuration is valid, but asks for something that this library does not support.
        public static let unsupported = Self(kind: .unsupported)
        /// A configuration describes a model of a family that this library does not run.
        public static let otherFamily = Self(kind: .otherFamily)
        /// A pickle names a Python global that a checkpoint does not need.
        public static let refusedGlobal = Self(kind: .refusedGlobal)
        /// A configuration field has the wrong type or a value out of range.
        public static let invalidConfiguration = Self(kind: .invalidConfiguration)
        /// An override names no configuration key.
        public static let unknownOverride = Self(kind: .unknownOverride)
        /// A tensor that the configuration calls for is not in the checkpoint.
        public static let missingTensor = Self(kind: .missingTensor)
        /// A tensor has no place in the model that the configuration describes.
        public static let unknownTensor = Self(kind: .unknownTensor)
        /// A tensor's shape is not the one that the configuration gives its role.
        public static let wrongShape = Self(kind: .wrongShape)
        /// A tensor's element type cannot serve as a weight.
        public static let wrongDType = Self(kind: .wrongDType)
        /// Two copies of a tensor that must be one differ.
        public static let conflictingTensors = Self(kind: .conflictingTensors)
        /// A tensor has an element that is an infinity or not a number.
        public static let notFinite = Self(kind: .notFinite)
        /// The tensors of a part are not those that its manifest describes.
        public static let fingerprintMismatch = Self(kind: .fingerprintMismatch)
        /// The output folder exists and is not empty.
        public static let outputExists = Self(kind: .outputExists)
        /// The system refused to create, write or rename a file.
        public static let writeFailed = Self(kind: .writeFailed)
        /// A caller's argument is out of range.
        public static let invalidArgument = Self(kind: .invalidArgument)
    }

    /// What went wrong.
    public var code: Code
    /// What is wrong and what to do next, without the file and the tensor.
    public var message: String
    /// The affected file or folder, if any.
    public var file: String?
    /// The affected tensor, if any.
    public var tensor: String?

    /// Describes a failure.
    ///
    /// - Parameters:
    ///   - code: What went wrong.
    ///   - message: What is wrong and what to do next.
    ///   - file: The affected file or folder.
    ///   - tensor: The affected tensor.
    public init(code: Code, message: String, file: String? = nil, tensor: String? = nil) {
        self.code = code
        // All three can quote the file, which can say anything.
        self.message = ErrorText.shown(message)
        self.file = file.map(ErrorText.shown)
        self.tensor = tensor.map(ErrorText.shown)
    }

    /// File, tensor and message in one line.
    public var description: String {
        var text = ""
        if let file = self.file { text += "\(file): " }
        if let tensor = self.tensor { text += "tensor \(tensor): " }
        return text + self.message
    }
}
