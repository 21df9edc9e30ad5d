// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// One request and its response, between the loop that receives it and the task that reads it.
final class WebExchange: Sendable {
    /// What a task waits for.
    enum Part {
        case head
        case body
    }

    /// What a reader gets.
    enum Taken {
        case piece([UInt8], wasPaused: Bool)
        case end
        case nothingYet
    }

    private struct State {
        var head: FileTransfer.Response?
        var pieces: [[UInt8]] = []
        var heldBytes = 0
        var isPaused = false
        /// How it ended; nil while it is in flight.
        var outcome: Result<Void, any Error>?
        var waiter: CheckedContinuation<Void, Never>?

        func has(_ part: Part) -> Bool {
            if self.outcome != nil { return true }
            return switch part {
            case .head: self.head != nil
            case .body: !self.pieces.isEmpty
            }
        }
    }

    /// Bytes kept for a reader that is slower than the network; at this number the connection pauses.
    static let mostHeldBytes = 1 << 20

    let request: FileTransfer.Request
    let configuration: WebClientConfiguration
    private let state = Mutex(State())

    init(_ request: FileTransfer.Request, _ configuration: WebClientConfiguration) {
        self.request = request
        self.configuration = configuration
    }

    // MARK: - The loop's side

    /// The head of the response has arrived.
    func receive(_ head: FileTransfer.Response) {
        self.change { $0.head = head }
    }

    /// Bytes of the body have arrived.
    ///
    /// - Returns: Whether they were taken; if not, offer them again once the reader has made room.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
        self.change { state in
            guard state.heldBytes < Self.mostHeldBytes else {
                state.isPaused = true
                return false
            }
            state.pieces.append(Array(bytes))
            state.heldBytes += bytes.count
            return true
        }
    }

    /// The response has ended or failed; the first of several ends counts.
    func end(_ outcome: Result<Void, any Error>) {
        self.change { state in
            if state.outcome == nil { state.outcome = outcome }
        }
    }

    /// Whether it is over.
    var hasEnded: Bool { self.state.withLock { $0.outcome != nil } }

    /// Changes the state and wakes the task that waits.
    private func change<Result: Sendable>(_ body: (inout sending State) -> Result) -> Result {
        let (result, waiter) = self.state.withLock { state in
            let result = body(&state)
            let waiter = state.waiter
            state.waiter = nil
            return (result, waiter)
        }
        waiter?.resume()
        return result
    }

    // MARK: - The reader's side

    /// The head, once it has arrived.
    func takeHead() throws -> FileTransfer.Response? {
        try self.state.withLock { state in
            if let head = state.head { return head }
            try state.outcome?.get()
            return nil
        }
    }

    /// The next piece of the body, once it has arrived.
    func take() throws -> Taken {
        try self.state.withLock { state in
            guard state.pieces.isEmpty else {
                let piece = state.pieces.removeFirst()
                state.heldBytes -= piece.count
                let wasPaused = state.isPaused && state.heldBytes <= Self.mostHeldBytes / 2
                if wasPaused { state.isPaused = false }
                return .piece(piece, wasPaused: wasPaused)
            }
            guard let outcome = state.outcome else { return .nothingYet }
            try outcome.get()
            return .end
        }
    }

    /// Waits until a part, or the end, has arrived.
    func wait(for part: Part) async {
        await withCheckedContinuation { continuation in
            let isHere = self.state.withLock { state in
                if state.has(part) { return true }
                state.waiter = continuation
                return false
            }
            if isHere { continuation.resume() }
        }
    }
}
