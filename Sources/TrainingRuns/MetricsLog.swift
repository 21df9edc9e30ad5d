// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// `metrics.jsonl`: a line for each report of a run, in the order of steps.
///
/// A run that resumes removes the lines of steps that it takes again, so that the file tells of one run.
public struct MetricsLog: Sendable {
    /// The file's name in a run's folder.
    public static let name = "metrics.jsonl"

    /// The lines of a file as far as they belong to a run's first steps.
    ///
    /// - Parameters:
    ///   - text: The file's content; a line that was cut off is left out.
    ///   - step: The last step whose lines stay.
    /// - Returns: The content without later lines.
    public static func kept(_ text: String, upTo step: Int) -> String {
        var kept = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: true) {
            guard let report = RunReport(line: String(line)), report.step <= step else { continue }
            kept += line + "\n"
        }
        return kept
    }

    private let path: String

    /// Opens the log of a run.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - step: The step that the run goes on after; nil for a new run, which begins the file anew.
    /// - Throws: ``RunError`` when the file cannot be written.
    public init(_ path: String, resumingAfter step: Int?) throws(RunError) {
        self.path = path
        let before = step == nil ? "" : (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        do {
            try Self.kept(before, upTo: step ?? 0).write(toFile: path, atomically: true, encoding: .utf8)
        } catch {
            throw RunError("\(path) cannot be written: \(error); make room, or name another --out")
        }
    }

    /// Adds a line.
    ///
    /// - Parameter report: What the line holds.
    /// - Returns: Whether the line was written; a full disk must not end a run for a line.
    @discardableResult
    public func append(_ report: RunReport) -> Bool {
        let line = Array((report.line + "\n").utf8)
        let descriptor = open(self.path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return write(descriptor, line, line.count) == line.count
    }

    /// The reports of the file.
    ///
    /// - Returns: Every line that is a report, in order.
    public func reports() -> [RunReport] {
        let text = (try? String(contentsOfFile: self.path, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { RunReport(line: String($0)) }
    }
}
