// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchTraining
internal import SwitchyardProtos

/// The weights below an adapter, which stay as they are: from the trainer, or from this machine.
extension ShardReplica {
    /// Refuses a run that the parts of a checkpoint on this machine are not for.
    func checkBases(of plan: ShardPlan) throws(RPCError) {
        guard let first = self.bases.first else { return }
        guard let adapter = plan.adapter else {
            throw RPCError(
                .failedPrecondition,
                "the host was started with the shard \(first.directory), which is for runs with --experts lora, but this run"
                    + " trains all weights and brings them; start the host without --shard"
            )
        }
        if let other = self.bases.first(where: { $0.fingerprint != adapter.base }) {
            throw RPCError(
                .failedPrecondition,
                "the host's shard \(other.directory) was cut from the checkpoint \(Fingerprint.text(other.fingerprint)), but the"
                    + " run began with \(Fingerprint.text(adapter.base)); start the host with a shard of that one, or without"
                    + " --shard"
            )
        }
    }

    /// Takes the weights from this machine, where they are.
    func takeBase(_ run: inout Run) throws(RPCError) {
        guard run.shard.needsBase, !self.bases.isEmpty else { return }
        do {
            try run.shard.takeBase(from: self.bases, checksum: run.base.checksum)
        } catch {
            throw RPCError(.failedPrecondition, "the host's shard does not fit the run: \(error)")
        }
    }

    /// Takes a piece of the weights from the trainer.
    func storeBase(_ request: StoreStateRequest, _ run: inout Run) throws(RPCError) -> ShardState {
        let expected = run.shard.baseByteCount
        guard expected > 0 else {
            throw RPCError(
                .failedPrecondition,
                "the run has no adapter, so that no weights lie below one; bring its state"
            )
        }
        guard run.shard.needsBase else { return try self.state(of: run) }
        if request.offset == 0 { run.base.arrived = 0 }
        guard request.offset == UInt64(run.base.arrived), request.piece.count % 4 == 0,
            run.base.arrived + request.piece.count <= expected
        else {
            throw RPCError(
                .failedPrecondition,
                "a piece of \(request.piece.count) bytes at \(request.offset) does not follow the \(run.base.arrived) of"
                    + " \(expected) that came of the weights below the adapter; begin again at 0, with whole numbers"
            )
        }
        run.shard.putBase(request.piece, at: run.base.arrived)
        run.base.arrived += request.piece.count
        if run.base.arrived == expected {
            run.base.arrived = 0
            do {
                try run.shard.completeBase(checksum: run.base.checksum)
            } catch {
                self.current = run
                throw RPCError(
                    .dataLoss,
                    "the weights below the adapter have another checksum than the run's; bring them again"
                )
            }
        }
        self.current = run
        return try self.state(of: run)
    }
}
