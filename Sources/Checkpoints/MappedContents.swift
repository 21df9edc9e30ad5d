// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardTypes
internal import Synchronization

/// The mapped tensors of parts with the checksums that their manifests have, to compare again while a service runs.
///
/// A whole checkpoint has no checksums, so there is nothing to compare.
struct MappedContents: Sendable {
    /// Bytes per second that a pass reads: slow enough for a disk and processors that others use.
    static let pace = 200_000_000
    /// The time from the end of a pass to the next one.
    static let interval = Duration.seconds(86_400)

    private struct Tensor: Sendable {
        var stored: StoredTensor
        var checksum: String
    }

    private let tensors: [Tensor]

    /// The number of tensors.
    var count: Int { self.tensors.count }

    /// Their bytes.
    var byteCount: Int { self.tensors.reduce(0) { $0 + $1.stored.range.count } }

    /// Finds what is mapped and has a checksum.
    ///
    /// - Parameter checkpoints: The parts.
    init(_ checkpoints: [Checkpoint]) {
        var tensors: [Tensor] = []
        for checkpoint in checkpoints {
            let checksums = checkpoint.manifest?.packing?.checksums ?? checkpoint.manifest?.checksums ?? [:]
            for (name, stored) in checkpoint.tensors where stored.storage is MappedFile {
                guard let checksum = checksums[name] else { continue }
                tensors.append(Tensor(stored: stored, checksum: checksum))
            }
        }
        self.tensors = tensors.sorted {
            ($0.stored.file, $0.stored.range.lowerBound) < ($1.stored.file, $1.stored.range.lowerBound)
        }
    }

    /// Compares each tensor with its checksum, from front to back.
    ///
    /// - Parameter pause: Called after each tensor with its bytes; returns whether to go on.
    /// - Returns: Whether all were compared.
    /// - Throws: `fingerprintMismatch` with the file, the tensor and both checksums.
    func compare(pause: (_ bytes: Int) -> Bool) throws(CheckpointError) -> Bool {
        for tensor in self.tensors {
            try Checkpoint.verify(tensor.stored, tensor.checksum)
            guard pause(tensor.stored.range.count) else { return false }
        }
        return true
    }

    /// Compares everything once, on a thread of its own with less weight than those that serve.
    ///
    /// - Parameter pace: Bytes per second at most.
    /// - Returns: How long it took; nil if the task was cancelled first.
    /// - Throws: As ``compare(pause:)``.
    func pass(pace: Int = Self.pace) async throws -> Duration? {
        let pass = Pass(pace: pace)
        let isWhole = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Bool, any Error>) in
                // It waits for disks, so it is none of the runtime's few threads.
                Thread.detachNewThread {
                    pass.giveWay()
                    continuation.resume(with: Result { try self.compare { pass.pause(after: $0) } })
                }
            }
        } onCancel: {
            pass.isCancelled.withLock { $0 = true }
        }
        return isWhole ? pass.start.duration(to: .now) : nil
    }

    /// What one pass has read, and when.
    private final class Pass: Sendable {
        let start = ContinuousClock.now
        let isCancelled = Mutex(false)
        private let pace: Int
        private let bytes = Mutex(0)

        init(pace: Int) { self.pace = pace }

        /// Waits until the pace allows more.
        ///
        /// - Returns: Whether to go on.
        func pause(after bytes: Int) -> Bool {
            let total = self.bytes.withLock { total in
                total += bytes
                return total
            }
            let due = self.start.advanced(by: .seconds(Double(total) / Double(self.pace)))
            while !self.isCancelled.withLock({ $0 }) {
                let left = ContinuousClock.now.duration(to: due)
                guard left > .zero else { return true }
                // Short, so that a service that ends does not wait for it.
                Thread.sleep(forTimeInterval: min(left, .milliseconds(50)).inSeconds)
            }
            return false
        }

        /// Lets busy threads have most of a processor; a fifth of one is more than the pace needs.
        func giveWay() {
            #if canImport(Glibc)
            // On Linux the calling thread alone (setpriority(2)); only advice, so a refusal changes nothing.
            _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
            #endif
        }
    }
}
