// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Logging
internal import OpenInference
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization

/// The checkpoints of a gateway, and the change from one to another: the runner of ``Rollout``.
final class ModelLanes: Sendable {
    private struct State {
        var rollout: Rollout
        var lanes: [Rollout.ModelID: ModelLane]
    }

    /// Loads a checkpoint beside the one that is served.
    typealias Load = @Sendable (_ checkpoint: String, _ serving: ModelLane) throws -> ModelLane

    private let state: Mutex<State>
    private let folder: CheckpointFolder?
    /// What clients may call whatever is served; nil if there is no such name.
    private let alias: String?
    private let logger: Logger
    private let load: Load
    private let wanted: AsyncStream<Rollout.Model>
    private let wantedSource: AsyncStream<Rollout.Model>.Continuation
    private let added: AsyncStream<ModelLane>
    private let addedSource: AsyncStream<ModelLane>.Continuation

    init(_ lane: ModelLane, alias: String?, folder: CheckpointFolder?, logger: Logger, load: @escaping Load) {
        let rollout = Rollout(checkpoint: lane.checkpoint)
        self.state = Mutex(State(rollout: rollout, lanes: [rollout.serving.id: lane]))
        self.current = Mutex(lane)
        self.alias = alias
        self.folder = folder
        self.logger = logger
        self.load = load
        (self.wanted, self.wantedSource) = AsyncStream.makeStream(of: Rollout.Model.self)
        (self.added, self.addedSource) = AsyncStream.makeStream(of: ModelLane.self)
    }

    private let current: Mutex<ModelLane>

    /// The lane of the checkpoint that is served.
    var serving: ModelLane { self.current.withLock { $0 } }

    /// Every lane that is loaded, the served one first.
    var all: [ModelLane] {
        self.state.withLock { state in
            let ids = [state.rollout.serving.id] + (state.rollout.other.map { [$0.id] } ?? [])
            return ids.compactMap { state.lanes[$0] }
        }
    }

    // MARK: - Requests

    /// Runs a request on the lane that it is given, from its first check to its last token.
    ///
    /// - Parameters:
    ///   - request: The request, whose bytes say which checkpoint it gets while two are served.
    ///   - body: Gets the lane.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    func with<Request: ProtoMessage, Answer>(
        _ request: Request,
        _ body: (ModelLane) async throws -> Answer
    ) async throws -> Answer {
        let isDivided = self.state.withLock { $0.rollout.isDivided }
        let point = isDivided ? Self.point(of: request.serialized()) : 0
        let (id, lane) = self.state.withLock { state in
            let id = state.rollout.begin(point: point)
            return (id, state.lanes[id])
        }
        defer { self.state.withLock { $0.rollout.ended(on: id) } }
        guard let lane else { throw RPCError(.internal, "a checkpoint that gets requests is not loaded") }
        return try await body(lane)
    }

    /// The models that requests may name, the served one first: under the name that stands for both, and under their own.
    var named: [ModelDescription] {
        let lanes = self.takingRequests.map(\.description)
        guard let alias, var served = lanes.first else { return lanes }
        served.name = alias
        return [served] + lanes
    }

    /// The model that a request names.
    ///
    /// - Parameters:
    ///   - name: Its name, or what stands for whatever is served.
    ///   - version: Its fingerprint in hexadecimal digits; empty for any.
    /// - Returns: The model; nil if no request may name it.
    func model(named name: String, version: String) -> ModelDescription? {
        self.takingRequests.map(\.description).first { self.isNamed($0, name, version) }
    }

    /// Gives a request, and all that it asks for, one checkpoint.
    ///
    /// - Parameters:
    ///   - name: The model that the request names; nil, or what stands for whatever is served, leaves it to the shares.
    ///   - version: The model's fingerprint in hexadecimal digits; empty for any.
    ///   - bytes: The request's bytes, for the shares.
    /// - Returns: The place on the checkpoint; nil if no checkpoint of this name takes requests.
    func lease(named name: String?, version: String = "", by bytes: some Sequence<UInt8>) -> ModelLease? {
        let isOpen = name == nil || name == self.alias && version.isEmpty
        let found = self.state.withLock { state -> (Rollout.ModelID, ModelLane)? in
            let id: Rollout.ModelID
            if isOpen {
                id = state.rollout.begin(point: state.rollout.isDivided ? Self.point(of: bytes) : 0)
            } else {
                let others = state.rollout.otherTakesRequests ? state.rollout.other.map { [$0.id] } ?? [] : []
                let named = ([state.rollout.serving.id] + others)
                    .first { id in
                        guard let description = state.lanes[id]?.description else { return false }
                        return self.isNamed(description, name ?? "", version)
                    }
                guard let named, state.rollout.begin(on: named) else { return nil }
                id = named
            }
            guard let lane = state.lanes[id] else {
                state.rollout.ended(on: id)
                return nil
            }
            return (id, lane)
        }
        return found.map { id, lane in
            ModelLease(lane) { [weak self] in self?.state.withLock { $0.rollout.ended(on: id) } }
        }
    }

    /// The lanes that take requests.
    private var takingRequests: [ModelLane] {
        self.state.withLock { state in
            let others = state.rollout.otherTakesRequests ? state.rollout.other.map { [$0.id] } ?? [] : []
            return ([state.rollout.serving.id] + others).compactMap { state.lanes[$0] }
        }
    }

    /// Whether a name and a version mean a model: `NAME@VERSION` is both in one.
    private func isNamed(_ model: ModelDescription, _ name: String, _ version: String) -> Bool {
        if name == model.name || name == self.alias {
            return version.isEmpty || version == ModelTensors.version(of: model)
        }
        let own = ModelTensors.version(of: model)
        return version.isEmpty && (name == "\(model.name)@\(own)" || self.alias.map { name == "\($0)@\(own)" } ?? false)
    }

    /// A number that follows from a request's bytes alone: FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), mixed by the
    /// finalizer of MurmurHash3 so that its remainders are even.
    static func point(of bytes: some Sequence<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
        hash = (hash ^ (hash >> 33)) &* 0xc4ce_b9fe_1a85_ec53
        return hash ^ (hash >> 33)
    }

    // MARK: - Steps

    /// Does a step of a rollout.
    ///
    /// - Parameter request: The step.
    /// - Returns: How far the rollout is.
    /// - Throws: ``RPCError`` with `FAILED_PRECONDITION` where the step is not possible, `INVALID_ARGUMENT` for a wrong field.
    func step(_ request: RolloutRequest) async throws -> RolloutDescription {
        switch request.step {
        case .unspecified: break
        case .rolloutBegin:
            if let problem = CheckpointFolder.problem(withName: request.checkpoint) {
                throw RPCError(.invalidArgument, problem)
            }
            guard self.folder != nil else {
                throw RPCError(
                    .failedPrecondition,
                    "this gateway has no folder of checkpoints to load \(request.checkpoint) from; start it with --checkpoints DIR"
                )
            }
            try self.handle(.begin(checkpoint: request.checkpoint, share: request.share))
        case .rolloutShare: try self.handle(.share(request.share))
        case .rolloutPromote: try self.handle(.promote)
        case .rolloutBack: try self.handle(.back)
        case .rolloutFinish: try self.handle(.finish)
        case .rolloutSettle: try await self.settle()
        }
        return self.report
    }

    /// Has every host hold the served checkpoint alone.
    private func settle() async throws {
        guard self.state.withLock({ $0.rollout.phase == .steady }) else {
            throw RPCError(.failedPrecondition, "a second checkpoint is still loaded here; finish the rollout first")
        }
        let lane = self.serving
        if let failure = await lane.cluster.settle(lane.fingerprint) {
            throw RPCError(.failedPrecondition, failure)
        }
    }

    private func handle(_ event: Rollout.Event) throws(RPCError) {
        let outcome = self.state.withLock { state -> Result<[Rollout.Action], RPCError> in
            do throws(Rollout.Refusal) {
                return .success(try state.rollout.handle(event, now: .now))
            } catch {
                return .failure(RPCError(.failedPrecondition, error.message))
            }
        }
        for action in try outcome.get() { try self.act(on: action) }
    }

    private func act(on action: Rollout.Action) throws(RPCError) {
        switch action {
        case .load(let model, isFor: let checkpoint):
            self.logger.info("a second checkpoint is being loaded", metadata: ["checkpoint": "\(checkpoint)"])
            self.wantedSource.yield(model)
        case .record(let checkpoint):
            let failure = self.record(checkpoint)
            try self.handle(.recorded(failure: failure))
            let lane = self.state.withLock { $0.lanes[$0.rollout.serving.id] }
            if let lane { self.current.withLock { $0 = lane } }
            if let failure { throw RPCError(.failedPrecondition, failure) }
            self.logger.notice(
                "another checkpoint is served",
                metadata: [
                    "checkpoint": "\(checkpoint ?? "of the settings")",
                    "fingerprint": "\(self.serving.fingerprint.fingerprintText)",
                ]
            )
        case .unload(let id):
            guard let lane = self.state.withLock({ $0.lanes.removeValue(forKey: id) }) else { return }
            lane.letGo()
            self.logger.info(
                "a checkpoint is unloaded",
                metadata: ["fingerprint": "\(lane.fingerprint.fingerprintText)"]
            )
        }
    }

    /// Writes what is served after a restart.
    ///
    /// - Returns: Why it could not be written; nil if it was.
    private func record(_ checkpoint: String?) -> String? {
        let lane = self.state.withLock { state in
            state.rollout.other.flatMap { state.lanes[$0.id] }
        }
        guard let lane, let folder = self.folder else { return "there is no checkpoint to record" }
        do {
            try folder.write(
                checkpoint.map { .init(checkpoint: $0, fingerprint: lane.fingerprint.fingerprintText) },
                of: .gateway
            )
            return nil
        } catch {
            return "what is served after a restart cannot be recorded: \(error)"
        }
    }

    // MARK: - Life

    /// Runs the lanes that are loaded later, until the task is cancelled.
    ///
    /// - Parameter onFailure: Called where a lane ends by itself, since its files changed.
    func runOthers(onFailure: @escaping @Sendable () -> Void) async {
        await withDiscardingTaskGroup { group in
            group.addTask {
                for await model in self.wanted { await self.prepare(model) }
            }
            for await lane in self.added {
                group.addTask {
                    do {
                        try await lane.run(logger: self.logger, onFailure: onFailure)
                    } catch {
                        guard !Task.isCancelled else { return }
                        self.logger.error("a checkpoint can no longer be served", metadata: ["error": "\(error)"])
                        onFailure()
                    }
                }
            }
        }
    }

    /// Refuses new requests on every lane.
    func beginDraining() { for lane in self.all { lane.engine.beginDraining() } }

    /// Loads a checkpoint and waits for the hosts.
    private func prepare(_ model: Rollout.Model) async {
        do {
            let serving = self.serving
            let outcome = Mutex<Result<ModelLane, any Error>?>(nil)
            try await ComputeThread.run(name: "load", givesWay: true) {
                let result = Result { try self.load(model.checkpoint ?? "", serving) }
                outcome.withLock { $0 = result }
            }
            guard let lane = try outcome.withLock({ $0 })?.get() else { return }
            let isWanted = self.state.withLock { state in
                guard state.rollout.other?.id == model.id else { return false }
                state.lanes[model.id] = lane
                return true
            }
            guard isWanted else { return }
            self.addedSource.yield(lane)
            while self.state.withLock({ $0.rollout.other?.id == model.id }), !Task.isCancelled {
                let hosts = lane.cluster.holdings
                if let refusal = hosts.refusal { throw RPCError(.failedPrecondition, refusal) }
                if lane.cluster.view.isComplete, hosts.ready == hosts.connected {
                    return try self.handle(.loaded(model.id))
                }
                self.state.withLock { $0.rollout.note("\(hosts.ready) of \(hosts.connected) hosts hold it") }
                try self.handle(.timer)
                try await Task.sleep(for: .milliseconds(50))
            }
        } catch {
            try? self.handle(.failed(model.id, (error as? RPCError)?.message ?? "\(error)"))
        }
    }

    /// How far the rollout is.
    var report: RolloutDescription {
        let (rollout, lanes) = self.state.withLock { ($0.rollout, $0.lanes) }
        func message(_ model: Rollout.Model) -> LoadedCheckpoint {
            LoadedCheckpoint(
                checkpoint: model.checkpoint ?? "",
                fingerprint: lanes[model.id]?.fingerprint ?? 0,
                running: UInt64(clamping: model.running),
                taken: model.taken
            )
        }
        var description = RolloutDescription()
        description.phase =
            switch rollout.phase {
            case .steady: .steady
            case .loading: .loading
            case .canary: .canary
            case .leaving: .leaving
            }
        description.serving = message(rollout.serving)
        description.other = rollout.other.map(message)
        description.share = Float(Double(rollout.share) / Double(Rollout.shareUnits))
        if let holdings = rollout.other.flatMap({ lanes[$0.id] })?.cluster.holdings {
            description.readyHosts = UInt32(clamping: holdings.ready)
            description.hosts = UInt32(clamping: holdings.connected)
        }
        description.detail = rollout.detail
        return description
    }
}
