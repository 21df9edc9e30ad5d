// SPDX-License-Identifier: Apache-2.0

import FuzzTargets
import Glibc

/// Runs a worker in its own process and keeps the input that stops it.
enum Supervisor {
    /// Runs the worker to its end.
    ///
    /// - Returns: The exit status: 0 where nothing was found.
    static func run(_ options: Options) -> Int32 {
        var arguments: [UnsafeMutablePointer<CChar>?] = (["switchyard-fuzz", "--worker"] + options.arguments)
            .map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        var process: pid_t = 0
        guard posix_spawn(&process, "/proc/self/exe", nil, nil, arguments, environ) == 0 else {
            print("error: the worker cannot be started")
            return 2
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        ScratchFolder.removeAll(of: process)
        let signal = status & 0x7f
        let current = Worker.currentPath(options)
        guard signal != 0 else {
            unlink(current)
            return (status >> 8) & 0xff
        }
        let what = signal == SIGPROF ? "hang" : "crash"
        if let input = CurrentInput.last(path: current) {
            let path = "\(options.artifacts)/\(what)-\(options.target.rawValue)-\(Files.name(of: input))"
            Files.write(input, to: path)
            print(
                "\(options.target.rawValue): \(what) (signal \(signal)) with --seed \(options.seed), kept as \(path); "
                    + "run it again with --replay"
            )
        } else {
            print("\(options.target.rawValue): \(what) (signal \(signal)), and no input was kept")
        }
        return 1
    }
}

/// Runs given inputs once each.
enum Replay {
    /// Runs the inputs in this process.
    ///
    /// - Returns: The exit status: 0 where every property held.
    static func run(_ options: Options, files: [String]) -> Int32 {
        var paths: [String] = []
        for file in files {
            let inside = Files.list(file)
            paths += inside.isEmpty ? [file] : inside
        }
        var failed = 0
        for path in paths {
            guard let bytes = Files.read(path) else {
                print("error: \(path) cannot be read")
                return 2
            }
            do throws(FuzzFinding) {
                _ = try options.target.run(bytes)
            } catch {
                print("\(path): \(error)")
                failed += 1
            }
        }
        print("\(paths.count) inputs, \(failed) findings")
        return failed == 0 ? 0 : 1
    }
}
