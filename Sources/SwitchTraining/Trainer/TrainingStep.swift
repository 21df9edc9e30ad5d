// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes
public import TensorKernels

/// Computes losses and gradients of one model's steps: a function of weights, batch, settings and step.
///
/// The results' bits depend on neither the threads, nor the instruction set, nor how the batch is cut into parts. With
/// several parts and a load balancing loss, the parts are first gone through for the routers' counts, which takes about a
/// third more time.
///
/// A step is computed by one caller at a time.
public final class TrainingStep {
    /// The model.
    public let configuration: ModelConfiguration
    /// Where the parameters lie.
    public let layout: ParameterLayout
    /// What is minimised, and how.
    public let settings: TrainingSettings

    private let parameters: ModelParameters
    private let pool: WorkPool
    private let level: KernelLevel
    private let arena = Arena()
    private let packs = Arena()
    /// The weights that a step computes with, where they are not those that it is given.
    private let rounded: ParameterBuffer?
    private let sums: StepSums
    /// Experts that are computed elsewhere; nil where the weights' own are.
    private let experts: ExpertsElsewhere?

    /// Bytes of activations at most so far.
    public var activationBytes: Int { self.arena.peakByteCount + self.packs.peakByteCount }

    /// The sums of squares of the latest step's gradients of experts that are trained elsewhere, by the tensor's name.
    public var squaresElsewhere: [String: Double] { self.experts?.squares ?? [:] }

    /// Where the time of the latest step's gradients went.
    public private(set) var times = StepTimes()

    /// Prepares the training of a model.
    ///
    /// - Parameters:
    ///   - configuration: The model, which needs a decoder: behind an encoder, or of a family without one.
    ///   - settings: What is minimised, and how.
    ///   - pool: Threads that share the work.
    ///   - level: The instruction set.
    ///   - experts: Where experts are computed; it does not change the bits.
    /// - Throws: `unsupported` for an encoder alone, `invalidSettings` or `limitExceeded`.
    public init(
        _ configuration: ModelConfiguration,
        settings: TrainingSettings = TrainingSettings(),
        pool: WorkPool,
        level: KernelLevel = .best,
        experts: ExpertPlace = .here
    ) throws(TrainingError) {
        guard configuration.hasDecoder, configuration.hasEncoder || configuration.design.isDecoderOnly else {
            throw TrainingError(
                code: .unsupported,
                message: "the model has no decoder to learn answers with; train a model with both stacks"
            )
        }
        try settings.validate()
        self.experts = ExpertsElsewhere(experts)
        try self.experts?.check(settings)
        self.configuration = configuration
        self.layout = try ParameterLayout(configuration)
        self.settings = settings
        self.pool = pool
        self.level = level
        self.parameters = ModelParameters(configuration, layout: self.layout)
        self.rounded = settings.precision == .bfloat16 ? ParameterBuffer(layout: self.layout) : nil
        self.sums = StepSums(configuration)
    }

    /// Computes a step's losses and gradients.
    ///
    /// - Parameters:
    ///   - batch: The examples.
    ///   - weights: The weights.
    ///   - gradients: Replaced by the step's gradients.
    ///   - step: The step's number, for random numbers and messages.
    /// - Returns: The losses.
    /// - Throws: `invalidBatch`; `notFinite` with step, part and what is not a number, and `noExperts` where experts that are
    ///   computed elsewhere gave no answer, after which the gradients are void.
    public func gradients(
        _ batch: TrainingBatch,
        weights: ParameterBuffer,
        into gradients: Gradients,
        step: Int
    ) throws(TrainingError) -> StepReport {
        try batch.validate(self.configuration, needsTeacher: self.settings.teacher != nil)
        try self.checkDraws(self.settings.capacity, of: batch)
        var attempts = 0
        while true {
            do throws(TrainingError) {
                return try self.attempt(batch, weights: weights, into: gradients, step: step)
            } catch {
                attempts += 1
                guard error.code == .voidStep, attempts < Self.mostAttempts else { throw error }
            }
        }
    }

    /// Refuses parts where which tokens are dropped is drawn among all of a step.
    private func checkDraws(_ policy: CapacityPolicy, of batch: TrainingBatch) throws(TrainingError) {
        guard case .drawn = policy.order, batch.parts.count > 1 else { return }
        throw TrainingError(
            code: .invalidBatch,
            message:
                "the step is cut into \(batch.parts.count) parts, but its dropped tokens are drawn among all of them; leave out the"
                + " limit of a part's tokens, or drop in the tokens' order"
        )
    }

    /// How often a step is computed whose experts, elsewhere, answer what cannot be trusted.
    private static let mostAttempts = 5

    private func attempt(
        _ batch: TrainingBatch,
        weights: ParameterBuffer,
        into gradients: Gradients,
        step: Int
    ) throws(TrainingError) -> StepReport {
        self.times = StepTimes()
        self.arena.end()
        var mark = ContinuousClock.now
        try self.experts?.begin(step: step)
        gradients.begin()
        self.sums.clear()
        let routing = StepRouting(
            self.configuration,
            settings: self.settings,
            policy: self.settings.capacity,
            batch: batch,
            step: UInt32(truncatingIfNeeded: step)
        )
        let randomness = StepRandomness(seed: self.settings.seed, step: UInt32(truncatingIfNeeded: step))
        let run = self.run(weights, gradients, routing, randomness)
        if batch.parts.count > 1, self.settings.balance > 0, self.configuration.hasExperts {
            for part in PartRows.all(of: batch, self.configuration) {
                _ = self.forward(part, run, keeping: false)
                self.arena.end()
                try self.experts?.check()
            }
            routing.knowCounts()
            routing.beginPass()
        }
        self.times.count(\.forward, since: &mark)
        var losses = TargetLosses()
        for (index, part) in PartRows.all(of: batch, self.configuration).enumerated() {
            self.forwardAndBackward(part, run, gradients, tokens: batch.targetTokens, addingTo: &losses)
            try self.experts?.check()
            guard losses.crossEntropy.isFinite, losses.squares.isFinite, losses.divergence.isFinite else {
                throw TrainingError(
                    code: .notFinite,
                    message:
                        "step \(step), part \(index + 1) of \(batch.parts.count) (examples \(batch.parts[index])): the"
                        + " cross-entropy is \(losses.crossEntropy / Double(losses.tokens)); the weights were not changed:"
                        + " lower the learning rate, or go back to an earlier checkpoint"
                )
            }
        }
        mark = .now
        self.sums.finish(into: gradients, self.configuration, self.parameters)
        gradients.clearUntouched(pool: self.pool)
        var report = self.report(losses, routing, batch)
        var squares = GradientNorm.squares(of: gradients, pool: self.pool)
        try self.experts?.add(to: &squares, self.layout)
        do throws(TrainingError) {
            report.gradientNorm = try GradientNorm.norm(squares: squares, layout: self.layout, scale: 1)
        } catch {
            throw TrainingError(
                code: .notFinite,
                message: "step \(step): the loss is \(report.loss), but \(error.message)"
            )
        }
        self.times.count(\.finish, since: &mark)
        guard report.loss.isFinite else {
            throw TrainingError(
                code: .notFinite,
                message:
                    "step \(step): the cross-entropy is \(report.crossEntropy), but the routers' losses are"
                    + " \(report.balance) and \(report.routerZ); lower the learning rate, or resume from the last save"
            )
        }
        return report
    }

    /// Computes the losses of examples without dropout and jitter, and with evaluation's capacity.
    ///
    /// - Parameters:
    ///   - batch: The examples.
    ///   - weights: The weights.
    /// - Returns: The losses.
    /// - Throws: `invalidBatch`; `noExperts` where experts that are computed elsewhere gave no answer.
    public func evaluate(_ batch: TrainingBatch, weights: ParameterBuffer) throws(TrainingError) -> StepReport {
        try batch.validate(self.configuration)
        try self.checkDraws(self.settings.evaluationCapacity, of: batch)
        let routing = StepRouting(
            self.configuration,
            settings: self.settings,
            policy: self.settings.evaluationCapacity,
            batch: batch
        )
        let run = self.run(weights, nil, routing, nil)
        var losses = TargetLosses()
        for part in PartRows.all(of: batch, self.configuration) {
            let rows = self.forward(part, run, keeping: false)
            try self.experts?.check()
            HeadLoss(run: run, parameters: self.parameters)(
                rows.decoder.output,
                targets: part.targets,
                teacher: part.teacher,
                tokens: batch.targetTokens,
                gradient: nil,
                addingTo: &losses
            )
            self.arena.end()
        }
        var report = self.report(losses, routing, batch)
        report.correctTokens = losses.correct
        return report
    }

    private func run(
        _ weights: ParameterBuffer,
        _ gradients: Gradients?,
        _ routing: StepRouting,
        _ randomness: StepRandomness?
    ) -> PartRun {
        if let rounded { Rounding.copy(weights, into: rounded, pool: self.pool) }
        return PartRun(
            configuration: self.configuration,
            weights: self.rounded ?? weights,
            pool: self.pool,
            level: self.level,
            arena: self.arena,
            exact: self.arena,
            packs: self.packs,
            settings: self.settings,
            randomness: randomness,
            gradients: gradients,
            sums: self.sums,
            routing: routing,
            experts: self.experts
        )
    }

    private func encoder(_ part: PartRows, _ run: PartRun) -> StackPass {
        StackPass(
            run: run,
            parameters: self.parameters,
            stack: .encoder,
            tokens: part.inputs,
            sequences: part.inputRows,
            firstRow: part.firstInputRow,
            memory: nil
        )
    }

    private func decoder(_ part: PartRows, _ run: PartRun, memory: Rows?) -> StackPass {
        StackPass(
            run: run,
            parameters: self.parameters,
            stack: .decoder,
            tokens: part.decoderInputs,
            sequences: part.targetRows,
            firstRow: part.firstTargetRow,
            memory: memory.map { ($0, part.inputRows) }
        )
    }

    private func forward(
        _ part: PartRows,
        _ run: PartRun,
        keeping: Bool
    ) -> (encoder: StackActivations?, decoder: StackActivations) {
        let encoder = self.configuration.hasEncoder ? self.encoder(part, run).forward(keeping: keeping) : nil
        let decoder = self.decoder(part, run, memory: encoder?.output).forward(keeping: keeping)
        return (encoder, decoder)
    }

    private func forwardAndBackward(
        _ part: PartRows,
        _ run: PartRun,
        _ gradients: Gradients,
        tokens: Int,
        addingTo losses: inout TargetLosses
    ) {
        defer {
            self.arena.end()
            self.packs.end()
        }
        var mark = ContinuousClock.now
        defer { self.times.count(\.backward, since: &mark) }
        let (encoder, decoder) = self.forward(part, run, keeping: true)
        self.times.count(\.forward, since: &mark)
        let width = self.configuration.modelWidth
        let gradient = self.arena.rows(part.targets.count, columns: width)
        HeadLoss(run: run, parameters: self.parameters)(
            decoder.output,
            targets: part.targets,
            teacher: part.teacher,
            tokens: tokens,
            gradient: gradient,
            addingTo: &losses
        )
        self.times.count(\.head, since: &mark)
        let memory = encoder.map { _ in self.arena.rows(part.inputs.count, columns: width) }
        if let memory {
            for row in 0..<memory.count { memory.row(row).update(repeating: 0, count: width) }
        }
        self.decoder(part, run, memory: encoder?.output)
            .backward(
                decoder,
                outputGradient: gradient,
                memoryGradient: memory,
                gradients: gradients
            )
        guard let encoder, let memory else { return }
        self.encoder(part, run)
            .backward(
                encoder,
                outputGradient: memory,
                memoryGradient: nil,
                gradients: gradients
            )
    }

    private func report(_ losses: TargetLosses, _ routing: StepRouting, _ batch: TrainingBatch) -> StepReport {
        var report = StepReport()
        let tokens = Double(losses.tokens)
        let smoothing = self.settings.labelSmoothing
        report.inputTokens = self.configuration.hasEncoder ? batch.inputTokens : 0
        report.targetTokens = losses.tokens
        report.crossEntropy = losses.crossEntropy / tokens
        report.softmaxZ = losses.squares / tokens
        (report.balance, report.routerZ, report.balanceGroups) = routing.losses()
        report.loss =
            (1 - smoothing) * report.crossEntropy + smoothing * (losses.uniform / tokens)
            + self.settings.softmaxZ * report.softmaxZ
        if let teacher = self.settings.teacher, batch.hasTeacher {
            let divergence = losses.divergence / tokens
            report.divergence = divergence
            report.loss =
                (1 - teacher.weight) * report.loss
                + teacher.weight * teacher.temperature * teacher.temperature * divergence
        }
        report.loss += self.settings.balance * report.balance
        report.loss += self.settings.routerZ * report.routerZ
        var (all, dropped) = (0, 0)
        for layer in self.configuration.sparseLayers {
            guard let counts = routing.layers[layer] else { continue }
            let sent = counts.sent.reduce(0, +)
            let lost = sent - counts.kept.reduce(0, +)
            all += sent
            dropped += lost
            report.layers.append(
                StepReport.Layer(
                    layer: layer,
                    shares: counts.sent.map { Double($0) / Double(max(sent, 1)) },
                    dropped: Double(lost) / Double(max(sent, 1)),
                    certainty: counts.certainty / Double(max(sent, 1))
                )
            )
        }
        report.dropped = Double(dropped) / Double(max(all, 1))
        return report
    }
}

/// One part of a batch as rows.
struct PartRows {
    let inputs: [Int32]
    /// The start token, then all of the target but its last token; in models without an encoder the input.
    let decoderInputs: [Int32]
    let targets: [Int32]
    /// The teacher's answers; nil where not all examples of the step have one.
    let teacher: TeacherRows?
    let inputRows: SequenceRows
    let targetRows: SequenceRows
    /// Rows of the step before this part's.
    let firstInputRow: Int
    let firstTargetRow: Int

    static func all(of batch: TrainingBatch, _ configuration: ModelConfiguration) -> [PartRows] {
        var (input, target) = (0, 0)
        let hasTeacher = batch.hasTeacher
        return batch.parts.map { range in
            let examples = batch.examples[range]
            let start = Int32(configuration.decoderStartTokenID)
            let inputs = examples.flatMap(\.input)
            let part = PartRows(
                inputs: inputs,
                decoderInputs: configuration.hasEncoder
                    ? examples.flatMap { [start] + $0.target.dropLast() } : inputs,
                targets: examples.flatMap(\.target),
                teacher: hasTeacher ? TeacherRows(examples) : nil,
                inputRows: SequenceRows(lengths: examples.map(\.input.count), first: range.lowerBound),
                targetRows: SequenceRows(lengths: examples.map(\.target.count), first: range.lowerBound),
                firstInputRow: input,
                firstTargetRow: target
            )
            input += part.inputs.count
            target += part.targets.count
            return part
        }
    }
}
