// SPDX-License-Identifier: Apache-2.0

extension FaultRow {
    /// Every row, in the table's order.
    package static let all: [FaultRow] =
        HostRows.rows + NetworkRows.rows + ReplyRows.rows + LifeRows.rows + GatewayRows.rows + [OverloadRow.row]
        + RubbishRows.rows + WeightRows.rows + MappingRows.rows + TurncoatRows.rows + OutputRows.rows + CrowdRows.rows
        + GreedyRows.rows + RolloutRows.rows

    /// The rows that a name stands for: `sigkill`, or `sigkill/alone` for one of its variants.
    package static func named(_ name: String) -> [FaultRow] {
        self.all.filter { $0.name == name || "\($0.name)/\($0.variant.rawValue)" == name }
    }
}
