// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import RPCCore
internal import ServiceKit
internal import SwitchyardProtos
internal import TensorKernels

/// The log's entries on their way to hosts.
extension ShardLink {
    /// Sends an entry, read from its file where it is in one.
    func sendEntry(_ index: Int, to replica: Int) {
        let (message, isReplay) = self.state.withLock { state -> (Message?, Bool) in
            let isReplay = state.answers[index] != nil || index < (state.book?.stepStart ?? 0)
            if isReplay { state.repeats += 1 }
            state.recoveries.sent(index, now: .now)
            return (state.messages[index], isReplay)
        }
        switch message {
        case nil: self.event { book, _ in book.acknowledged(replica, index: index, isVoid: true) }
        case .rows(let rows): self.sendRows(rows, index, to: replica, isReplay: isReplay)
        case .file(let place): self.sendFromFile(place, index, to: replica, isReplay: isReplay)
        case .apply(let request):
            self.call(.trainingApply, to: replica, request) { (result: Result<ShardState, RPCError>) in
                switch result {
                case .failure(let error): self.failed(replica, error)
                case .success(let answer): self.applied(index, replica, Int(clamping: request.step), answer.checksum)
                }
            }
        }
    }

    /// Sends an entry's rows.
    func sendRows(_ rows: ShardRows, _ index: Int, to replica: Int, isReplay: Bool) {
        self.send(rows, to: replica, isBackward: true, isReplay: isReplay) { result in
            switch result {
            case .failure(let error): self.failed(replica, error)
            case .success(let matrix):
                self.acknowledged(index, replica, attempt: Int(rows.envelope.attempt)) { state in
                    if !isReplay { self.take(matrix, index, replica, &state) }
                }
            }
        }
    }

    private func acknowledged(
        _ index: Int,
        _ replica: Int,
        attempt: Int,
        _ body: @Sendable (inout State) -> Void
    ) {
        self.event { book, state in
            let isVoid = index >= book.stepStart && attempt != book.attempt
            if !isVoid {
                state.recoveries.answered(index, by: replica, now: .now)
                body(&state)
            }
            return book.acknowledged(replica, index: index, isVoid: isVoid)
        }
    }

    /// Keeps rows' gradients; those of a second replica must have the same bits.
    private func take(_ matrix: FloatMatrix, _ index: Int, _ replica: Int, _ state: inout State) {
        guard let first = state.answers[index] else {
            state.answers[index] = matrix
            state.used.insert(replica)
            return
        }
        let size = first.rows * first.columns * MemoryLayout<Float>.stride
        if first.rows == matrix.rows, memcmp(first.pointer, matrix.pointer, size) != 0 {
            state.void = "two replicas of \(self.name) give different gradients"
        }
    }

    /// Compares the state after a step with that of other replicas.
    private func applied(_ index: Int, _ replica: Int, _ step: Int, _ checksum: UInt64) {
        self.event { book, state in
            if let first = state.checksums[step], first != checksum {
                state.disputes += 1
                state.records[replica, default: Record()].differences += 1
                state.troubles[replica] = "its weights after step \(step + 1) differ from another replica's"
                if state.disputes > 8 {
                    state.fatal =
                        "replicas of \(self.name) do not agree about the weights after step \(step + 1), time after time:"
                        + " one of \(self.targets.joined(separator: ", ")) computes wrongly; take it away, and resume"
                }
                return book.failed(replica, distrusts: true, now: .now)
            }
            if state.checksums[step] != nil {
                state.records[replica, default: Record()].agreements += 1
                if let giver = state.checksumGivers.removeValue(forKey: step), giver != replica {
                    state.records[giver, default: Record()].agreements += 1
                }
            } else {
                state.checksumGivers[step] = replica
            }
            state.checksums[step] = checksum
            state.recoveries.answered(index, by: replica, now: .now)
            return book.acknowledged(replica, index: index, isVoid: false)
        }
    }
}
