// SPDX-License-Identifier: Apache-2.0

public import Logging
internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// A value that is read from files and reloaded when they change, without a restart.
///
/// The files are checked (not read) on a timer, on a thread that may block. A change that cannot be loaded leaves the
/// old value in use and is logged as an error once. Nothing is checked before ``begin()`` or after the last ``end()``.
public final class WatchedFiles<Value: Sendable>: Sendable {
    private struct State {
        var value: Value?
        var watch: FileWatch?
        var users = 0
        /// Distinguishes timers of an earlier watch from those of the current one.
        var generation = 0
        var timer: Scheduled<Void>?
    }

    /// The files' paths.
    public let paths: [String]

    private let what: String
    private let interval: Duration?
    private let logger: Logger
    private let read: @Sendable (_ current: Value?) throws -> Value
    private let eventLoop: any EventLoop
    private let state = Mutex(State())

    /// Names the files; nothing is read yet.
    ///
    /// - Parameters:
    ///   - what: What the files hold, for the log: `the server's certificate`.
    ///   - paths: The files' paths.
    ///   - interval: How often the files are checked; nil reads them only once.
    ///   - logger: Told what was reloaded and what could not be.
    ///   - read: Reads the files, given the value in use. What it throws must name the file and say what to do.
    public init(
        _ what: String,
        paths: [String],
        interval: Duration?,
        logger: Logger,
        read: @escaping @Sendable (_ current: Value?) throws -> Value
    ) {
        self.what = what
        self.paths = paths
        self.interval = interval
        self.logger = logger
        self.read = read
        self.eventLoop = MultiThreadedEventLoopGroup.singleton.next()
    }

    /// The value in use; nil before the first ``load()``.
    public var current: Value? { self.state.withLock { $0.value } }

    /// Reads the files if they have not been read yet.
    ///
    /// - Returns: The value in use.
    /// - Throws: What reading throws.
    @discardableResult
    public func load() throws -> Value {
        if let value = self.current { return value }
        // The stamps are older than what is read, so the next check sees a change in between.
        let stamps = self.paths.map { FileStamp.of($0) }
        let value = try self.read(nil)
        return self.state.withLock { state in
            if let other = state.value { return other }
            state.value = value
            state.watch = FileWatch(loaded: stamps)
            return value
        }
    }

    /// Loads the files if necessary and watches them until ``end()`` has been called as often as this.
    ///
    /// - Throws: What reading throws; then ``end()`` must not be called.
    public func begin() throws {
        try self.load()
        guard let interval = self.interval else { return }
        let generation = self.state.withLock { state -> Int? in
            state.users += 1
            guard state.users == 1 else { return nil }
            state.generation += 1
            return state.generation
        }
        if let generation { self.schedule(generation, after: interval) }
    }

    /// Stops watching unless others still watch.
    public func end() {
        guard self.interval != nil else { return }
        let timer = self.state.withLock { state -> Scheduled<Void>? in
            state.users -= 1
            guard state.users == 0 else { return nil }
            state.generation += 1
            defer { state.timer = nil }
            return state.timer
        }
        timer?.cancel()
    }

    // MARK: - Private

    private func schedule(_ generation: Int, after delay: Duration) {
        let timer = self.eventLoop.scheduleTask(in: delay.timeAmount) { [weak self] in
            guard let self else { return }
            NIOThreadPool.singleton.submit { [weak self] poolState in
                guard case .active = poolState else { return }
                self?.look(generation)
            }
        }
        self.state.withLock { state in
            if state.generation == generation { state.timer = timer } else { timer.cancel() }
        }
    }

    /// Checks the files, on a thread that may block.
    private func look(_ generation: Int) {
        guard let interval = self.interval else { return }
        let stamps = self.paths.map { FileStamp.of($0) }
        let action = self.state.withLock { state -> FileWatch.Action? in
            guard state.generation == generation else { return nil }
            return state.watch?.looked(stamps)
        }
        guard let action else { return }
        switch action {
        case .wait:
            self.schedule(generation, after: interval)
        case .lookAgain:
            self.schedule(generation, after: min(interval, .seconds(1)))
        case .load:
            self.reload()
            self.schedule(generation, after: interval)
        }
    }

    private func reload() {
        let files = self.paths.joined(separator: ", ")
        do {
            let value = try self.read(self.current)
            self.state.withLock { $0.value = value }
            self.logger.notice("\(self.what) was reloaded", metadata: ["files": "\(files)"])
        } catch {
            self.logger.error(
                "\(self.what) changed but cannot be loaded; the old one stays in use",
                metadata: ["files": "\(files)", "error": "\(error)"]
            )
        }
    }
}
