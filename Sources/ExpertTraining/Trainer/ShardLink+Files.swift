// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Logging
internal import NIOCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardProtos

/// Entries of the log whose rows are in files, where they are not in the way of newer ones.
extension ShardLink {
    /// Writes an entry's rows to a file, and lets go of them.
    func moveToFile(_ move: ShardLog.Move) {
        let message = self.state.withLock { $0.messages[move.index] }
        guard let files, case .rows(let rows)? = message else { return }
        self.background.async {
            do throws(LogFiles.Failure) {
                let place = try files.write(rows.payload(isReplay: false).segments)
                self.event { book, state in
                    guard book.moved(move) else {
                        self.free([place])
                        return []
                    }
                    state.messages[move.index] = .file(place)
                    state.logTrouble = nil
                    return []
                }
            } catch {
                let isNew = self.state.withLock { $0.logTrouble == nil }
                if isNew {
                    self.logger.warning(
                        "the log stays in memory, and states are kept more often",
                        metadata: ["shard": "\(self.name)", "why": "\(error)"]
                    )
                }
                self.event { book, state in
                    state.logTrouble = error.description
                    book.couldNotMove(move, now: .now)
                    return []
                }
            }
        }
    }

    /// Sends an entry whose rows are in a file.
    func sendFromFile(_ place: LogFiles.Place, _ index: Int, to replica: Int, isReplay: Bool) {
        guard let files else { return }
        self.background.async {
            do {
                let rows = try ShardRows(try files.read(place))
                self.sendRows(rows, index, to: replica, isReplay: isReplay)
            } catch {
                self.damaged(index, place, replica, "\(error)")
            }
        }
    }

    /// Rows that cannot be read: a replica that has not taken them needs a later state.
    private func damaged(_ index: Int, _ place: LogFiles.Place, _ replica: Int, _ reason: String) {
        let isKept = self.state.withLock { state in
            if case .file(place)? = state.messages[index] { true } else { false }
        }
        guard isKept else {
            // Forgotten meanwhile.
            return self.event { book, _ in book.acknowledged(replica, index: index, isVoid: true) }
        }
        self.logger.error("the log is damaged", metadata: ["shard": "\(self.name)", "why": "\(reason)"])
        self.event { book, state in
            state.logTrouble = reason
            if !book.damaged(index, now: .now) { state.void = reason }
            return book.failed(replica, now: .now)
        }
    }

    /// Lets go of entries outside the log.
    func forgetMessages(_ state: inout State, _ book: ShardBook) {
        let kept = book.firstIndex..<book.end
        self.free(state.messages.filter { !kept.contains($0.key) }.values.compactMap(\.place))
        state.messages = state.messages.filter { kept.contains($0.key) }
        state.recoveries.keep(kept)
    }

    private func free(_ places: [LogFiles.Place]) {
        guard let files, !places.isEmpty else { return }
        self.background.async { files.free(places) }
    }
}

extension ShardLink.Message {
    /// Where its rows are in a file; nil where they are not.
    fileprivate var place: LogFiles.Place? {
        if case .file(let place) = self { place } else { nil }
    }
}

extension ShardRows {
    /// Rows of a `Backward` call.
    ///
    /// - Parameter message: The message.
    /// - Throws: `ProtoError` for one that is none.
    fileprivate init(_ message: ByteBuffer) throws(ProtoError) {
        let parsed: Result<(TrainingRowsEnvelope, Range<Int>), ProtoError> = message.withUnsafeReadableBytes { bytes in
            do throws(ProtoError) {
                let (envelope, tensor) = try TrainingRowsEnvelope.parse(bytes, isBackward: true)
                return .success((envelope, tensor))
            } catch {
                return .failure(error)
            }
        }
        let (envelope, tensor) = try parsed.get()
        var rows = message
        rows.moveReaderIndex(forwardBy: tensor.lowerBound)
        self.init(envelope: envelope, tensor: rows.readSlice(length: tensor.count) ?? ByteBuffer())
    }
}
