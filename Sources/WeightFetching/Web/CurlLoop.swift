// SPDX-License-Identifier: Apache-2.0

internal import CCurl
internal import Foundation
internal import Synchronization

/// libcurl's transfers on their own thread, which tasks hand requests to.
///
/// Connections are kept between requests, and closed with the loop.
final class CurlLoop: Sendable {
    private enum Command {
        case start(WebExchange)
        case resume(WebExchange)
        case cancel(WebExchange)
        case stop(CheckedContinuation<Void, Never>)
    }

    /// Safety: used by the loop's thread alone, but for `curl_multi_wakeup`, which any thread may call as long as the
    /// handle lives; the inbox's lock is held then, and the handle is freed only once the inbox is closed.
    private struct Multi: @unchecked Sendable {
        var handle: UnsafeMutableRawPointer
    }

    private struct Inbox {
        var commands: [Command] = []
        var isClosed = false
    }

    private static let isReady = switchyard_curl_begin() == CURLE_OK
    /// The longest sleep without anything to do, in milliseconds; commands and sockets end it.
    private static let longestSleep: Int32 = 60_000

    private let multi: Multi
    private let inbox = Mutex(Inbox())

    /// Starts the thread; ``stop()`` ends it.
    ///
    /// - Throws: ``FetchError`` where libcurl cannot be used.
    init() throws(FetchError) {
        guard Self.isReady, let handle = curl_multi_init() else {
            throw FetchError(.invalidArgument, "libcurl cannot be initialised; check whether memory is short")
        }
        self.multi = Multi(handle: handle)
        let thread = Thread { self.run() }
        thread.name = "fetch"
        thread.start()
    }

    /// Sends a request.
    func start(_ exchange: WebExchange) {
        if !self.post(.start(exchange)) { exchange.end(.failure(CancellationError())) }
    }

    /// Resumes a body whose reader has room again.
    func resume(_ exchange: WebExchange) {
        _ = self.post(.resume(exchange))
    }

    /// Ends a request whose caller has left.
    func cancel(_ exchange: WebExchange) {
        _ = self.post(.cancel(exchange))
    }

    /// Ends all requests, closes the connections and ends the thread.
    func stop() async {
        await withCheckedContinuation { continuation in
            if !self.post(.stop(continuation)) { continuation.resume() }
        }
    }

    /// - Returns: Whether the loop will see the command.
    private func post(_ command: Command) -> Bool {
        self.inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            inbox.commands.append(command)
            curl_multi_wakeup(self.multi.handle)
            return true
        }
    }

    // MARK: - The thread

    private func run() {
        Self.blockBrokenPipes()
        var transfers: [UnsafeMutableRawPointer: CurlTransfer] = [:]
        var stopping: CheckedContinuation<Void, Never>?
        while stopping == nil {
            for command in self.takeCommands() {
                switch command {
                case .start(let exchange): self.begin(exchange, &transfers)
                case .resume(let exchange):
                    if let transfer = Self.transfer(of: exchange, transfers) {
                        switchyard_curl_resume(transfer.handle)
                    }
                case .cancel(let exchange):
                    if let transfer = Self.transfer(of: exchange, transfers) { self.remove(transfer, &transfers) }
                    exchange.end(.failure(CancellationError()))
                case .stop(let continuation): stopping = continuation
                }
            }
            guard stopping == nil else { break }
            var running: Int32 = 0
            curl_multi_perform(self.multi.handle, &running)
            self.finishDone(&transfers)
            curl_multi_poll(self.multi.handle, nil, 0, Self.longestSleep, nil)
        }
        self.close(transfers)
        stopping?.resume()
    }

    /// A peer that closes its end makes a call fail instead of killing the process.
    private static func blockBrokenPipes() {
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
    }

    private static func transfer(
        of exchange: WebExchange,
        _ transfers: [UnsafeMutableRawPointer: CurlTransfer]
    ) -> CurlTransfer? {
        transfers.values.first { $0.exchange === exchange }
    }

    private func takeCommands() -> [Command] {
        self.inbox.withLock { inbox in
            let commands = inbox.commands
            inbox.commands = []
            return commands
        }
    }

    private func begin(_ exchange: WebExchange, _ transfers: inout [UnsafeMutableRawPointer: CurlTransfer]) {
        // Cancelled before it was begun.
        guard !exchange.hasEnded else { return }
        do throws(WebFailure) {
            let transfer = try CurlTransfer(exchange)
            let code = curl_multi_add_handle(self.multi.handle, transfer.handle)
            guard code == CURLM_OK else {
                throw WebFailure(
                    reason: "libcurl rejected the request (\(String(cString: curl_multi_strerror(code))))",
                    isPassing: false
                )
            }
            transfers[transfer.handle] = transfer
        } catch {
            exchange.end(.failure(error))
        }
    }

    private func remove(_ transfer: CurlTransfer, _ transfers: inout [UnsafeMutableRawPointer: CurlTransfer]) {
        curl_multi_remove_handle(self.multi.handle, transfer.handle)
        transfers[transfer.handle] = nil
    }

    private func finishDone(_ transfers: inout [UnsafeMutableRawPointer: CurlTransfer]) {
        var left: Int32 = 0
        while let message = curl_multi_info_read(self.multi.handle, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let handle = message.pointee.easy_handle,
                let transfer = transfers[handle]
            else { continue }
            let code = message.pointee.data.result
            // The code is read first: the message goes with the handle.
            transfer.finish(code)
            self.remove(transfer, &transfers)
        }
    }

    /// Ends what is left, and frees the handle once nothing can wake it.
    private func close(_ transfers: [UnsafeMutableRawPointer: CurlTransfer]) {
        for transfer in transfers.values {
            curl_multi_remove_handle(self.multi.handle, transfer.handle)
            transfer.exchange.end(.failure(CancellationError()))
        }
        let late = self.inbox.withLock { inbox in
            inbox.isClosed = true
            return inbox.commands
        }
        for command in late {
            switch command {
            case .start(let exchange): exchange.end(.failure(CancellationError()))
            case .resume, .cancel: break
            case .stop(let continuation): continuation.resume()
            }
        }
        curl_multi_cleanup(self.multi.handle)
    }
}
