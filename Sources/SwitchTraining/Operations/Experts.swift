// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// What a sparse layer keeps for its backward pass.
struct SparseActivations {
    let input: Rows
    let router: RouterActivations
    let plan: RoutePlan
    /// The experts' input rows, in dispatched order.
    let dispatched: Rows
    /// What the experts keep; nil where they are computed elsewhere.
    let experts: FeedForwardActivations?
    /// The experts' outputs, in dispatched order.
    let outputs: Rows
}

/// Router, dispatch, experts and combine of one sparse layer: `y = p E(x)` with the chosen expert's probability `p`.
///
/// Where the model does not scale by it, `y = E(x) p / stop(p)`: the value is the expert's, and the router still learns. A
/// dropped token gives 0, or its scaled input, as the configuration says.
struct SparseLayerPass {
    let run: PartRun
    let parameters: SparseParameters
    let sequences: SequenceRows
    /// Rows of the stack in the step before this part's.
    let firstRow: Int

    private var scales: Bool { self.run.configuration.scalesByProbability }
    private var passes: Bool { self.run.configuration.droppedTokens == .pass }

    private func networks(_ plan: RoutePlan) -> FeedForwards {
        let layer = self.parameters.layer
        return FeedForwards(
            run: self.run,
            groups: plan.groups.map { group in
                FeedForwards.Group(parameters: self.parameters.experts[group.expert], rows: group.rows)
            },
            dropout: self.run.dropout(
                .inner,
                layer.stack,
                layer.block,
                rate: self.run.settings.expertDropout ?? self.run.settings.dropout
            ),
            place: { self.sequences.place(Int(plan.sources[$0])) }
        )
    }

    /// Where the dropout of each dispatched row comes from.
    private func places(_ plan: RoutePlan) -> [RowPlace] {
        plan.sources.map { source in
            let place = self.sequences.place(Int(source))
            return RowPlace(sequence: UInt32(place.sequence), position: UInt32(place.position))
        }
    }

    /// Computes the layer; `known` is the plan of an earlier pass over the same rows, followed and not counted again.
    func forward(_ input: Rows, into output: Rows, known: RoutePlan?) -> SparseActivations {
        let run = self.run
        let router = TrainingRouter(run: run, parameters: self.parameters, sequences: self.sequences)
        let (kept, choices) = router.forward(input)
        if known == nil { router.record(kept) }
        let plan =
            known
            ?? run.routing.plan(
                self.parameters.layer,
                choices: choices,
                sequences: self.sequences,
                firstRow: self.firstRow
            )
        let dispatched = run.arena.rows(plan.sources.count, columns: input.columns)
        run.share(dispatched.count, width: input.columns) { range in
            for row in range {
                dispatched.row(row).update(from: input.row(Int(plan.sources[row])), count: input.columns)
            }
        }
        let outputs = run.arena.rows(plan.sources.count, columns: input.columns)
        let experts: FeedForwardActivations?
        if let elsewhere = run.experts {
            elsewhere.forward(
                self.parameters.layer,
                plan,
                dispatched,
                places: run.randomness == nil ? nil : self.places(plan),
                into: outputs
            )
            experts = nil
        } else {
            experts = self.networks(plan).forward(dispatched, into: outputs)
        }
        run.settle(outputs)
        run.share(input.count, width: input.columns) { range in
            for token in range {
                let slot = Int(plan.slots[token])
                guard slot >= 0 || self.passes else {
                    output.row(token).update(repeating: 0, count: input.columns)
                    continue
                }
                let scale = self.scales ? kept.probabilities.row(token)[Int(plan.choices[token])] : 1
                let source = slot >= 0 ? outputs.row(slot) : input.row(token)
                Residual.scale(source, by: scale, count: input.columns, into: output.row(token))
            }
        }
        return SparseActivations(
            input: input,
            router: kept,
            plan: plan,
            dispatched: dispatched,
            experts: experts,
            outputs: outputs
        )
    }

    func backward(_ kept: SparseActivations, outputGradient: Rows, inputGradient: Rows, gradients: Gradients) {
        let run = self.run
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let (plan, columns) = (kept.plan, kept.input.columns)
        let expertGradient = run.arena.rows(plan.sources.count, columns: columns)
        let dispatchedGradient = run.arena.rows(plan.sources.count, columns: columns)
        var chosen = [Double](repeating: 0, count: kept.input.count)
        chosen.withUnsafeMutableBufferPointer { chosen in
            guard let chosen = chosen.baseAddress else { return }
            run.share(kept.input.count, width: 2 * columns) { range in
                for token in range {
                    let slot = Int(plan.slots[token])
                    let gradient = outputGradient.row(token)
                    let probability = kept.router.probabilities.row(token)[Int(plan.choices[token])]
                    let scale = self.scales ? probability : 1
                    if slot >= 0 {
                        Residual.scale(gradient, by: scale, count: columns, into: expertGradient.row(slot))
                    } else if self.passes {
                        Residual.scale(gradient, by: scale, count: columns, into: inputGradient.row(token))
                    } else {
                        continue
                    }
                    let value = slot >= 0 ? kept.outputs.row(slot) : kept.input.row(token)
                    let along = ck_dot64(run.level.rawValue, gradient, value, columns)
                    chosen[token] = self.scales ? along : along / Double(probability)
                }
            }
        }
        run.settle(expertGradient)
        if let experts = kept.experts {
            self.networks(plan)
                .backward(
                    experts,
                    outputGradient: expertGradient,
                    inputGradient: dispatchedGradient,
                    gradients: gradients
                )
        } else {
            run.experts?
                .backward(
                    self.parameters.layer,
                    plan,
                    kept.dispatched,
                    places: self.places(plan),
                    outputGradient: expertGradient,
                    inputGradient: dispatchedGradient
                )
        }
        run.share(kept.input.count, width: columns) { range in
            for token in range {
                let slot = Int(plan.slots[token])
                if slot >= 0 {
                    inputGradient.row(token).update(from: dispatchedGradient.row(slot), count: columns)
                } else if !self.passes {
                    inputGradient.row(token).update(repeating: 0, count: columns)
                }
            }
        }
        TrainingRouter(run: run, parameters: self.parameters, sequences: self.sequences)
            .backward(
                kept.router,
                plan: plan,
                chosenGradients: chosen,
                inputGradient: inputGradient,
                gradients: gradients
            )
    }
}
