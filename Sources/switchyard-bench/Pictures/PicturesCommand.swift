// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation

/// `switchyard-bench pictures`: the documents' pictures from the figures kept next to them.
struct PicturesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pictures",
        abstract: "Draw the pictures of the documents, and write the simulator's table, from committed figures.",
        discussion: """
            The figures are in docs/images/data. Nothing is measured or simulated.

            EXAMPLE
              switchyard-bench pictures
              switchyard-bench pictures --check
            """
    )

    @Option(help: ArgumentHelp("The project's folder.", valueName: "folder"))
    var root = "."

    @Flag(help: "Write nothing; fail if a file is not what would be written.")
    var check = false

    func run() throws {
        var stale: [String] = []
        for made in try Pictures(root: self.root).all() {
            let path = "\(self.root)/\(made.path)"
            guard (try? String(contentsOfFile: path, encoding: .utf8)) != made.content else { continue }
            stale.append(made.path)
            if self.check { continue }
            do {
                try Data(made.content.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
            } catch {
                throw BenchError("\(path) cannot be written: \(error.localizedDescription)")
            }
            Terminal.print("wrote \(made.path)")
        }
        guard !self.check || stale.isEmpty else {
            throw BenchError("not up to date: \(stale.joined(separator: ", ")); run `make pictures` and commit them")
        }
    }
}
