// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Runs ``FileTransfer``s: sends their requests, writes what arrives, waits.
struct FileDownloader: Sendable {
    let client: WebClient
    var policy = RetryPolicy.defaults
    let events: @Sendable (FetchEvent) -> Void

    /// Fetches a file, from where an earlier run stopped.
    ///
    /// - Parameters:
    ///   - file: What to fetch.
    ///   - target: Where to put it; it appears only when complete.
    ///   - progress: Told how many bytes of the file are on the disk.
    /// - Returns: What was fetched.
    /// - Throws: ``FetchError``; `CancellationError`.
    func fetch(
        _ file: RemoteFile,
        to target: String,
        progress: @Sendable (Int) -> Void
    ) async throws -> FetchedFile {
        let partial = try PartialFile(for: target)
        var transfer = FileTransfer(
            file,
            partialBytes: partial.byteCount,
            validator: partial.validator,
            policy: self.policy
        )
        // The checksum of what is on the disk; nil where it must be read again.
        var running: RunningChecksum?
        var action = transfer.start()
        while true {
            try Task.checkCancellation()
            progress(transfer.position)
            switch action {
            case .send(let request):
                do {
                    let answer = try await self.client.send(request)
                    action = transfer.responded(answer.head, draw: .random(in: 0..<1), now: Date())
                    guard case .receive(let start, let validator) = action else { continue }
                    // The hash covers what is on the disk, unless the file is truncated.
                    if start != partial.byteCount { running = nil }
                    try partial.prepare(from: start, validator: validator)
                    if running == nil { running = try Self.checksum(of: partial, file) }
                    action = try await self.receive(answer, into: partial, &transfer, &running, progress: progress)
                } catch let failure as WebFailure {
                    guard failure.isPassing else {
                        throw FetchError(.denied, "\(file.name): \(failure.reason)")
                    }
                    action = transfer.notAnswered(failure.reason, draw: .random(in: 0..<1))
                }
            case .receive:
                // Handled where the answer is at hand.
                action = transfer.waited()
            case .wait(let wait, let reason):
                self.events(.retry(reason: reason, wait: wait))
                try await Task.sleep(for: wait)
                action = transfer.waited()
            case .verify:
                let found = try (running ?? Self.checksum(of: partial, file)).value()
                running = nil
                action = transfer.verified(found)
                if found != file.checksum {
                    try partial.prepare(from: 0, validator: nil)
                    self.events(.warning("\(file.name): the checksum is wrong; what was fetched is discarded"))
                }
            case .finish:
                try partial.finish(as: target)
                return FetchedFile(
                    name: file.name,
                    byteCount: file.byteCount,
                    receivedBytes: transfer.receivedBytes,
                    origin: transfer.receivedBytes == 0
                        ? .present : transfer.receivedBytes < file.byteCount ? .resumed : .fetched
                )
            case .fail(let error):
                if error.code == .corrupt { partial.discard() }
                throw error
            }
        }
    }

    /// Writes a body to the disk.
    private func receive(
        _ answer: WebClient.Answer,
        into partial: PartialFile,
        _ transfer: inout FileTransfer,
        _ running: inout RunningChecksum?,
        progress: @Sendable (Int) -> Void
    ) async throws -> FileTransfer.Action {
        var failure: String?
        while true {
            let piece: [UInt8]?
            do {
                piece = try await answer.body.next()
            } catch let error as WebFailure {
                failure = error.reason
                break
            }
            guard let piece else { break }
            try transfer.received(piece.count)
            try piece.withUnsafeBytes { bytes in
                running?.update(bytes)
                try partial.append(bytes)
            }
            progress(transfer.position)
        }
        return transfer.bodyEnded(failure, draw: .random(in: 0..<1))
    }

    private static func checksum(of partial: PartialFile, _ file: RemoteFile) throws(FetchError) -> RunningChecksum {
        let checksum = try RunningChecksum(like: file.checksum, byteCount: file.byteCount)
        try partial.read { checksum.update($0) }
        return checksum
    }

    /// Fetches a small answer into memory, with the same retries and redirects.
    ///
    /// - Parameters:
    ///   - address: What to fetch.
    ///   - authorization: The value of the `authorization` header for that address.
    ///   - what: What it is, for messages.
    ///   - most: The most bytes that it may have.
    ///   - explain: What a refusal means.
    /// - Returns: The body.
    /// - Throws: ``FetchError``; `CancellationError`.
    func fetchSmall(
        _ address: RemoteAddress,
        authorization: String?,
        what: String,
        most: Int,
        explain: (FileTransfer.Response, RemoteAddress) -> FetchError?
    ) async throws -> [UInt8] {
        var exchange = SmallExchange(address, authorization: authorization, what: what, policy: self.policy)
        while true {
            try Task.checkCancellation()
            var action: SmallExchange.Action
            do {
                let answer = try await self.client.send(exchange.request)
                action = exchange.responded(answer.head, draw: .random(in: 0..<1), now: Date(), explain: explain)
                if case .take = action {
                    do {
                        return try await Self.collect(answer, most: most, what: what, address: address)
                    } catch let failure as WebFailure {
                        action = exchange.notAnswered(failure.reason, draw: .random(in: 0..<1))
                    }
                }
            } catch let failure as WebFailure {
                guard failure.isPassing else { throw FetchError(.denied, "\(what): \(failure.reason)") }
                action = exchange.notAnswered(failure.reason, draw: .random(in: 0..<1))
            }
            switch action {
            case .again, .take: break
            case .wait(let wait, let reason):
                self.events(.retry(reason: reason, wait: wait))
                try await Task.sleep(for: wait)
                exchange.waited()
            case .fail(let error): throw error
            }
        }
    }

    private static func collect(
        _ answer: WebClient.Answer,
        most: Int,
        what: String,
        address: RemoteAddress
    ) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        while let piece = try await answer.body.next() {
            guard bytes.count + piece.count <= most else {
                throw FetchError(
                    .badAnswer,
                    "\(what): \(address) answers with more than \(most) bytes; check the address"
                )
            }
            bytes += piece
        }
        return bytes
    }
}
