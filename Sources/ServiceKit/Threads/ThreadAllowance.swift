// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Whether the system lets this process start the threads that it will need.
///
/// Event loops and the language's own threads are started by libraries that stop the process silently, or wait for
/// ever, where the system refuses one. So the threads are tried first: as many as will be needed are started, held and ended
/// again, which counts every limit there is.
package enum ThreadAllowance {
    /// The system gives too few threads.
    package struct Refused: Error, Sendable, Hashable, CustomStringConvertible {
        /// Who needs them: `switchyard gateway`.
        package var name: String
        /// How many more threads it needs.
        package var needed: Int
        /// How many it got.
        package var given: Int
        /// The limits that are known, in words; empty where none is.
        package var limits: [String]

        /// Names the need, the limits and what to do.
        package var description: String {
            let known = self.limits.isEmpty ? "memory or a limit of the system" : self.limits.joined(separator: "; ")
            return
                "\(self.name) needs \(self.needed) more threads on \(ThreadAllowance.processors) processors, but the system gives "
                + "\(self.given) (\(known)); raise the limit: ulimit -u, TasksMax= of a systemd unit, or the pids limit of a "
                + "container"
        }
    }

    /// Processors that libraries start a thread for each.
    static let processors = max(1, System.coreCount, sysconf(Int32(_SC_NPROCESSORS_ONLN)))

    /// Threads that any command may start: an event loop and a worker of the language's runtime for each processor, and the
    /// runtime's own.
    package static var ofCommands: Int { 2 * Self.processors + 4 }

    /// Threads that a command starts that computes, serves or fetches: those of any command, and its own.
    package static var ofServices: Int { Self.ofCommands + 4 }

    /// Threads that a service starts after it has read its settings.
    ///
    /// - Parameter threads: Its compute threads.
    /// - Returns: An event loop for each processor, the compute threads and the service's own.
    package static func ofServices(computing threads: Int) -> Int { Self.processors + threads + 6 }

    /// Starts threads, ends them, and so knows whether there may be as many.
    ///
    /// - Parameters:
    ///   - count: How many more threads are needed.
    ///   - name: Who needs them.
    /// - Throws: ``Refused`` naming the limits.
    package static func require(_ count: Int, for name: String) throws(Refused) {
        let given = Self.start(count)
        guard given < count else { return }
        throw Refused(name: name, needed: count, given: given, limits: Self.limits())
    }

    // MARK: - The trial

    private final class Gate: Sendable {
        let isOpen = Monitor(false)
    }

    /// Starts threads that do nothing, until the system refuses one, and ends them.
    ///
    /// - Returns: How many ran at the same time, at most `count`.
    private static func start(_ count: Int) -> Int {
        let gate = Gate()
        var threads: [pthread_t] = []
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        // They use next to none, and address space may be limited too.
        pthread_attr_setstacksize(&attributes, 1 << 18)
        defer { pthread_attr_destroy(&attributes) }
        while threads.count < count {
            let held = Unmanaged.passRetained(gate)
            var thread = pthread_t()
            let code = pthread_create(
                &thread,
                &attributes,
                { argument in
                    guard let argument else { return nil }
                    let gate = Unmanaged<Gate>.fromOpaque(argument).takeRetainedValue()
                    _ = gate.isOpen.wait { $0 ? true : nil }
                    return nil
                },
                held.toOpaque()
            )
            guard code == 0 else {
                held.release()
                break
            }
            threads.append(thread)
        }
        gate.isOpen.notify { $0 = true }
        for thread in threads { pthread_join(thread, nil) }
        return threads.count
    }

    // MARK: - The limits

    private static func limits() -> [String] {
        let perUser = Self.text("/proc/self/limits").flatMap { Self.userLimit($0) }
        let groups = Self.text("/proc/self/cgroup").map { Self.controlGroups($0, read: Self.text) } ?? []
        return Self.limits(perUser: perUser, controlGroups: groups)
    }

    /// The soft limit of a user's processes and threads.
    ///
    /// - Parameter text: The content of `/proc/self/limits` (proc(5)).
    /// - Returns: Nil if there is none.
    static func userLimit(_ text: String) -> UInt64? {
        let name = "Max processes"
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) }) else { return nil }
        return line.dropFirst(name.count).split(separator: " ").first.flatMap { UInt64($0) }
    }

    /// The limits in words.
    ///
    /// - Parameters:
    ///   - perUser: RLIMIT_NPROC; nil if there is none.
    ///   - controlGroups: The `pids.max` of control groups, by file.
    /// - Returns: The limit of the user and the tightest of the groups, where they are known.
    static func limits(perUser: UInt64?, controlGroups: [(file: String, limit: UInt64)]) -> [String] {
        let user = perUser.map { ["ulimit -u is \($0), for all threads of this user"] } ?? []
        let group = controlGroups.min { $0.limit < $1.limit }
        return user + (group.map { ["\($0.file) is \($0.limit)"] } ?? [])
    }

    /// The limits of the control groups that a process belongs to, of both versions.
    ///
    /// Source: cgroups(7), `/proc/[pid]/cgroup`. Inside a container the group is often mounted as the root.
    ///
    /// - Parameters:
    ///   - text: The content of `/proc/self/cgroup`.
    ///   - read: Reads a file; nil if there is none.
    /// - Returns: Each limit with its file.
    static func controlGroups(
        _ text: String,
        read: (String) -> String?
    ) -> [(file: String, limit: UInt64)] {
        var files: [String] = []
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let root: String
            switch (fields[0], fields[1]) {
            case ("0", ""): root = "/sys/fs/cgroup"
            case (_, let controllers) where controllers.split(separator: ",").contains("pids"):
                root = "/sys/fs/cgroup/pids"
            default: continue
            }
            // The limits of all groups above count too.
            var path = fields[2].split(separator: "/")
            while true {
                files.append(([root] + path.map(String.init) + ["pids.max"]).joined(separator: "/"))
                if path.popLast() == nil { break }
            }
        }
        return files.compactMap { file in
            guard let text = read(file), let limit = UInt64(text.prefix { $0.isNumber }) else { return nil }
            return (file, limit)
        }
    }

    /// The beginning of a small file; nil if it cannot be read.
    private static func text(_ path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
