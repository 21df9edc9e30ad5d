// SPDX-License-Identifier: Apache-2.0

internal import SwitchModel

/// How the rows of several calls for one layer lie in one pass: sorted by expert, and within an expert by call.
///
/// The rows of an expert are then one product, whose weights are read once. An expert's output row depends on its input
/// row and the weights alone, so each call gets the bits that it would get by itself.
struct ForwardBatch: Sendable, Equatable {
    /// Rows that lie together in a call and in the pass.
    struct Run: Sendable, Equatable {
        /// The first row in the call.
        let callRow: Int
        /// The first row in the pass.
        let row: Int
        let rows: Int
    }

    /// The experts and their numbers of rows, in the order of the pass's rows.
    let groups: [ExpertRows]

    /// Where each call's rows lie.
    let runs: [[Run]]

    /// Rows of all calls.
    let rows: Int

    /// Lays out calls for the same layer.
    ///
    /// - Parameter calls: The groups of each call.
    init(_ calls: [[ExpertRows]]) {
        var parts: [(expert: Int, call: Int, callRow: Int, rows: Int)] = []
        parts.reserveCapacity(calls.reduce(0) { $0 + $1.count })
        for (call, groups) in calls.enumerated() {
            var row = 0
            for group in groups {
                parts.append((group.expert, call, row, group.rows))
                row += group.rows
            }
        }
        parts.sort { ($0.expert, $0.call, $0.callRow) < ($1.expert, $1.call, $1.callRow) }
        var groups: [ExpertRows] = []
        var runs = [[Run]](repeating: [], count: calls.count)
        var row = 0
        for part in parts {
            runs[part.call].append(Run(callRow: part.callRow, row: row, rows: part.rows))
            row += part.rows
            if let last = groups.last, last.expert == part.expert {
                groups[groups.count - 1] = ExpertRows(expert: part.expert, rows: last.rows + part.rows)
            } else {
                groups.append(ExpertRows(expert: part.expert, rows: part.rows))
            }
        }
        self.groups = groups
        self.runs = runs
        self.rows = row
    }
}
