// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// What came of a run.
package struct FaultReport: Sendable, Equatable {
    /// What came of one request.
    package struct Outcome: Sendable, Equatable {
        /// The request's number.
        package var id: Int
        /// gRPC's status code; nil where the request never ended.
        package var status: UInt8?
        /// Its tokens.
        package var tokens: [UInt32]
        /// Tokens that came before the first report of a drop.
        package var tokensWithoutDrops: Int
        /// Rows that were reported as dropped.
        package var drops: Int
        /// Whether an unaudited host's plausible lie reached it.
        package var isTainted: Bool
        /// The status's message.
        package var message: String

        init(_ request: ClientRequest) {
            self.id = request.request.id
            self.status = request.status
            self.tokens = request.tokens.map(\.token)
            self.tokensWithoutDrops = request.tokens.prefix { $0.drops == 0 }.count
            self.drops = Int(request.tokens.last?.drops ?? 0)
            self.isTainted = request.isTainted
            self.message = request.message
        }
    }

    /// What came of each request.
    package var outcomes: [Outcome] = []
    /// Rules that were broken.
    package var violations: [String] = []
    /// Events that were handled.
    package var events = 0
    /// Calls to hosts that were sent.
    package var calls = 0
    /// Bytes that arrived anywhere.
    package var bytes = 0
    /// Rows that were dropped.
    package var dropped = 0
    /// Wrong rows that went unnoticed.
    package var taintedRows = 0
    /// Simulated time, nanoseconds.
    package var virtualNanoseconds: Int64 = 0
    /// How often each rare state was reached.
    package var rareStates: [RareState: Int] = [:]
}
