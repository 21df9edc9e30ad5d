// SPDX-License-Identifier: Apache-2.0

extension FaultRow {
    /// Every row, in the table's order.
    package static let all: [FaultRow] =
        HostRows.rows + NetworkRows.rows + ReplyRows.rows + LifeRows.rows + GatewayRows.rows + [OverloadRow.row]
}
