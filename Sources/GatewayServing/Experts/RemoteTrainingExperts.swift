// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Foundation
internal import ServiceKit
public import SwitchModel
public import SwitchyardTypes
public import TensorKernels

/// The cluster's experts as a trainer uses them: no row is ever dropped.
///
/// Calls are placed, hedged, retried and audited as those of a gateway. Rows that come back without an answer are asked for
/// again, of any host that can answer by then, until all have one. What a host answers is a function of the call, so it does not
/// show in the results which host answered, or when, or how often it was asked.
public final class RemoteTrainingExperts: TrainingExperts, Sendable {
    /// Rows of a call at most, so that several hosts of a pool share a step's.
    static let mostRows = 2048

    /// The pauses before rows are asked for again: the first, and the longest.
    private static let pauses = (first: 0.02, longest: 1.0)

    private let cluster: ExpertCluster
    private let fingerprint: UInt64
    private let patience: Duration
    private let isStopping: @Sendable () -> Bool

    /// Uses a cluster's experts.
    ///
    /// - Parameters:
    ///   - cluster: The expert hosts; the caller runs it.
    ///   - fingerprint: The fingerprint of the checkpoint that is trained on.
    ///   - patience: How long to wait while no row comes back.
    ///   - isStopping: Whether the run has been told to end: then nothing is waited for that no host answers.
    init(
        cluster: ExpertCluster,
        fingerprint: UInt64,
        patience: Duration,
        isStopping: @escaping @Sendable () -> Bool = { false }
    ) {
        self.cluster = cluster
        self.fingerprint = fingerprint
        self.patience = patience
        self.isStopping = isStopping
    }

    /// Computes experts' outputs, ``TrainingExperts/forward(_:groups:tokens:)``.
    ///
    /// - Throws: `GatewayError` where a row is not finite, or no host answers for as long as ``RemoteTrainingExperts`` waits.
    public func forward(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix) throws -> FloatMatrix {
        try self.compute(layer, groups, tokens, nil)
    }

    /// Computes the gradients of rows, ``TrainingExperts/backward(_:groups:tokens:outputGradients:)``.
    ///
    /// - Throws: As ``forward(_:groups:tokens:)``.
    public func backward(
        _ layer: SparseLayer,
        groups: [ExpertRows],
        tokens: FloatMatrix,
        outputGradients: FloatMatrix
    ) throws -> FloatMatrix {
        try self.compute(layer, groups, tokens, outputGradients)
    }

    private func compute(
        _ layer: SparseLayer,
        _ groups: [ExpertRows],
        _ tokens: FloatMatrix,
        _ gradients: FloatMatrix?
    ) throws -> FloatMatrix {
        // Hosts would be blamed for what they make of such rows.
        guard tokens.isFinite, gradients?.isFinite ?? true else {
            throw GatewayError(
                .experts,
                "a row for the experts of \(layer.words) is an infinity or not a number; lower the learning rate, and"
                    + " resume from the last save"
            )
        }
        let results = FloatMatrix(uninitializedRows: tokens.rows, columns: tokens.columns)
        var open = OpenRows(groups)
        var (since, pause) = (ContinuousClock.now, Self.pauses.first)
        while true {
            let request = open.request(layer, tokens: tokens, gradients: gradients)
            let outputs = try self.calls(request).wait()
            let answered = open.take(outputs, into: results)
            guard !open.isEmpty else { return results }
            if answered > 0 { (since, pause) = (.now, Self.pauses.first) }
            guard since.duration(to: .now) < self.patience, !self.cluster.isHopeless, answered > 0 || !self.isStopping()
            else {
                throw self.failure(layer, open, outputs)
            }
            Thread.sleep(forTimeInterval: pause)
            pause = min(2 * pause, Self.pauses.longest)
        }
    }

    /// Sends rows to their hosts.
    private func calls(_ request: TrainingRows) -> PendingLayer {
        let layer = request.rows.layer
        let (assignments, unplaced, deadline) = self.cluster.assignments(of: request.rows.plan.groups, in: layer)
        let pieces = assignments.flatMap { $0.pieces(of: Self.mostRows) }
        return PendingLayer(
            sendingTo: self.cluster,
            layer: layer,
            assignments: pieces,
            calls: pieces.map {
                var call = LayerCall(
                    $0,
                    of: request.rows,
                    gradients: request.gradients,
                    fingerprint: self.fingerprint
                )
                call.isTraining = true
                return call
            },
            unplaced: unplaced,
            deadline: deadline
        )
    }

    private func failure(_ layer: SparseLayer, _ open: OpenRows, _ outputs: ExpertOutputs) -> GatewayError {
        let reasons = Set(outputs.dropped.map { "\($0.reason)" }).sorted().joined(separator: ", ")
        return GatewayError(
            .experts,
            "no expert host answered for \(open.count) rows of \(layer.words)"
                + (self.isStopping()
                    ? ", and the run was told to end (\(reasons));"
                    : self.cluster.isHopeless ? " (\(reasons));" : " in \(self.patience) (\(reasons));")
                + " \(self.cluster.troubleInWords) start the hosts again, and resume"
        )
    }
}

/// What is asked for at once.
struct TrainingRows {
    let rows: ExpertLayerRequest
    /// The gradients of the rows' outputs; nil where outputs are asked for.
    let gradients: FloatMatrix?
}

/// Rows that have no answer yet, by expert, ascending.
struct OpenRows {
    private var rows: [(expert: Int, row: Int)] = []
    private var isWhole = true

    init(_ groups: [ExpertRows]) {
        for group in groups {
            for _ in 0..<group.rows { self.rows.append((group.expert, self.rows.count)) }
        }
    }

    var isEmpty: Bool { self.rows.isEmpty }
    var count: Int { self.rows.count }

    /// A request for them.
    ///
    /// - Parameters:
    ///   - layer: Their layer.
    ///   - tokens: All rows.
    ///   - gradients: The gradients of all rows' outputs, if gradients are asked for.
    /// - Returns: The request, whose plan has the open rows in their order.
    func request(_ layer: SparseLayer, tokens: FloatMatrix, gradients: FloatMatrix?) -> TrainingRows {
        let plan = DispatchPlan(
            choices: self.rows.map { Int32($0.expert) },
            probabilities: Array(repeating: 1, count: self.rows.count),
            sequences: Array(repeating: 0, count: self.rows.count),
            expertCount: (self.rows.last?.expert ?? 0) + 1,
            policy: .unlimited,
            checkpointCapacity: 0
        )
        return TrainingRows(
            rows: ExpertLayerRequest(
                layer: layer,
                plan: plan,
                hidden: self.isWhole ? tokens : self.picked(from: tokens),
                sequences: Array(repeating: 0, count: self.rows.count)
            ),
            gradients: self.isWhole ? gradients : gradients.map { self.picked(from: $0) }
        )
    }

    private func picked(from matrix: FloatMatrix) -> FloatMatrix {
        let picked = FloatMatrix(uninitializedRows: self.rows.count, columns: matrix.columns)
        for (index, open) in self.rows.enumerated() {
            (picked.pointer + index * matrix.columns)
                .update(from: matrix.pointer + open.row * matrix.columns, count: matrix.columns)
        }
        return picked
    }

    /// Copies answers to their places; what has none stays open.
    ///
    /// - Parameters:
    ///   - outputs: The answers to ``request(_:tokens:gradients:)``.
    ///   - results: All rows' results.
    /// - Returns: How many rows were answered.
    mutating func take(_ outputs: ExpertOutputs, into results: FloatMatrix) -> Int {
        let rowBytes = results.columns * MemoryLayout<Float>.stride
        var isOpen = Array(repeating: true, count: self.rows.count)
        for chunk in outputs.chunks {
            chunk.storage.withUnsafeBytes { bytes in
                for (index, row) in chunk.rows.enumerated() where bytes.count >= (index + 1) * rowBytes {
                    let source = UnsafeRawBufferPointer(rebasing: bytes[index * rowBytes..<(index + 1) * rowBytes])
                    let target = results.pointer + self.rows[row].row * results.columns
                    UnsafeMutableRawBufferPointer(start: target, count: rowBytes).copyMemory(from: source)
                    isOpen[row] = false
                }
            }
        }
        let before = self.rows.count
        self.rows = zip(self.rows, isOpen).filter(\.1).map(\.0)
        self.isWhole = self.rows.count == results.rows
        return before - self.rows.count
    }
}

extension PoolAssignment {
    /// The assignment cut into pieces.
    ///
    /// - Parameter most: Rows of a piece at most.
    /// - Returns: The pieces, each with experts ascending.
    func pieces(of most: Int) -> [PoolAssignment] {
        var pieces: [PoolAssignment] = []
        var room = 0
        for group in self.groups {
            var rows = group.rows
            while !rows.isEmpty {
                if room == 0 {
                    var piece = self
                    piece.groups = []
                    pieces.append(piece)
                    room = most
                }
                let taken = min(room, rows.count)
                pieces[pieces.count - 1].groups
                    .append(
                        .init(expert: group.expert, rows: rows.lowerBound..<rows.lowerBound + taken)
                    )
                rows = rows.lowerBound + taken..<rows.upperBound
                room -= taken
            }
        }
        return pieces
    }
}

extension FloatMatrix {
    /// Whether no element is an infinity or not a number.
    fileprivate var isFinite: Bool {
        FiniteCheck.allFinite(
            UnsafeRawBufferPointer(start: self.pointer, count: self.rows * self.columns * MemoryLayout<Float>.stride)
        )
    }
}
