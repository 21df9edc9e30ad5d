// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import JSONValues
internal import SwitchyardTypes

/// What a file asks of a gateway's checkpoints.
///
/// ```
/// {"checkpoint": "tuned-2", "canary": "5%"}     beside what is served, with a share of the new requests
/// {"checkpoint": "tuned-2"}                     in place of what is served
/// {"back": true}                                no change: what was served before it
/// ```
struct RolloutWish: Sendable, Equatable {
    /// How far a checkpoint is to come.
    enum Aim: Sendable, Equatable {
        /// Beside the one that is served, with a share of the new requests, 0 to 1.
        case canary(String, share: Float)
        /// In place of the one that is served.
        case promotion(String)
        /// What was served before the change that is in progress.
        case back
    }

    /// Why a file asks for nothing that can be done.
    struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
        let description: String
    }

    /// The most bytes that a file may have.
    static let longestFile = 4096

    let aim: Aim

    init(_ aim: Aim) { self.aim = aim }

    /// Reads a file; nil for one without content, which asks for nothing.
    ///
    /// - Parameter bytes: The file's bytes.
    /// - Throws: ``Problem`` naming what is wrong with it.
    init?(reading bytes: [UInt8]) throws(Problem) {
        guard bytes.count <= Self.longestFile else {
            throw Problem(description: "the file has \(bytes.count) bytes, over the limit of \(Self.longestFile)")
        }
        guard bytes.contains(where: { $0 > UInt8(ascii: " ") }) else { return nil }
        let members = try Self.members(bytes)
        if let other = members.keys.filter({ !["checkpoint", "canary", "back"].contains($0) }).min() {
            throw Problem(
                description: "the file has \"\(ErrorText.shown(String(other.prefix(80))))\", which is no key; "
                    + "give checkpoint, with canary or without, or back"
            )
        }
        if let back = members["back"] {
            guard back == .bool(true), members.count == 1 else {
                throw Problem(description: "back is \(back.kind); it must be true, and stand alone")
            }
            self.aim = .back
            return
        }
        guard let named = members["checkpoint"] else {
            throw Problem(description: "the file names no checkpoint; give checkpoint, or back")
        }
        guard case .string(let checkpoint) = named else {
            throw Problem(description: "checkpoint is \(named.kind); it must be a text, the name of a folder")
        }
        if let problem = CheckpointFolder.problem(withName: checkpoint) { throw Problem(description: problem) }
        guard let canary = members["canary"] else {
            self.aim = .promotion(checkpoint)
            return
        }
        self.aim = .canary(checkpoint, share: try Self.share(canary))
    }

    private static func members(_ bytes: [UInt8]) throws(Problem) -> [String: JSONValue] {
        let parsed = bytes.withUnsafeBytes { bytes in
            Result<JSONValue, JSONFault> { () throws(JSONFault) in
                try JSONText.value(bytes, dialect: .serde, maxValues: 16, refuseDuplicates: true)
            }
        }
        switch parsed {
        case .success(.object(let members)): return members
        case .success(let other): throw Problem(description: "the file holds \(other.kind); it must be a JSON object")
        case .failure(let fault): throw Problem(description: "the file is not JSON: \(fault.message)")
        }
    }

    private static func share(_ value: JSONValue) throws(Problem) -> Float {
        let share: Float? =
            if case .string(let text) = value { RequestShare.parse(text) } else { value.double.map { Float($0) } }
        guard let share, (0...1).contains(share) else {
            throw Problem(
                description: "canary is \(value.kind); it must be a share from 0% to 100%, such as \"5%\" or 0.05"
            )
        }
        return share
    }
}
