// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos
internal import Synchronization

/// Lets long texts be cut into tokens one at a time.
///
/// However many calls bring such texts, they keep one of the threads busy that all calls share; the others serve.
final class TextTurns: Sendable {
    /// Bytes from which a text takes turns.
    ///
    /// Shorter ones take well under a millisecond.
    static let longTextBytes = 4_096

    private struct State {
        var isTaken = false
        var waiting: [CheckedContinuation<Void, Never>] = []
        var next = 0
    }

    private let state = Mutex(State())

    /// Reads a request when it is its turn.
    ///
    /// - Parameters:
    ///   - bytes: Bytes of the request's texts together.
    ///   - read: Reads the request.
    /// - Returns: What `read` returns.
    /// - Throws: What `read` throws.
    func take<Result, Failure: Error>(
        _ bytes: Int,
        _ read: () throws(Failure) -> Result
    ) async throws(Failure) -> Result {
        guard bytes >= Self.longTextBytes else { return try read() }
        await self.enter()
        defer { self.leave() }
        return try read()
    }

    /// Waits for the turn.
    func enter() async {
        await withCheckedContinuation { continuation in
            let isFree = self.state.withLock { state in
                guard state.isTaken else {
                    state.isTaken = true
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if isFree { continuation.resume() }
        }
    }

    /// Gives the turn to the next.
    func leave() {
        let next = self.state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard state.next < state.waiting.count else {
                state = State()
                return nil
            }
            let next = state.waiting[state.next]
            state.next += 1
            if state.next > 64, state.next * 2 > state.waiting.count {
                state.waiting.removeFirst(state.next)
                state.next = 0
            }
            return next
        }
        next?.resume()
    }
}

extension ModelInput {
    /// Bytes of the text; 0 for ids.
    fileprivate var textBytes: Int {
        if case .text(let text) = self { text.utf8.count } else { 0 }
    }
}

extension GenerateRequest {
    /// Bytes of the texts that are to be cut into tokens.
    var textBytes: Int { (self.input?.textBytes ?? 0) + (self.decoderPrefix?.textBytes ?? 0) }
}

extension EncodeRequest {
    /// Bytes of the texts that are to be cut into tokens.
    var textBytes: Int { self.inputs.reduce(self.input?.textBytes ?? 0) { $0 + ($1.input?.textBytes ?? 0) } }
}

extension ScoreRequest {
    /// Bytes of the texts that are to be cut into tokens.
    var textBytes: Int {
        self.inputs.reduce((self.input?.textBytes ?? 0) + (self.target?.textBytes ?? 0)) {
            $0 + ($1.input?.textBytes ?? 0) + ($1.target?.textBytes ?? 0)
        }
    }
}
