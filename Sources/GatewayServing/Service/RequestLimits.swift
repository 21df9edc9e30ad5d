// SPDX-License-Identifier: Apache-2.0

public import BatchScheduling
internal import ServiceKit
internal import SwitchModel

/// How large a request may be.
public struct RequestLimits: Sendable, Hashable {
    /// Ids of the encoder's input.
    public var maxInputTokens = GatewaySettings.table.maxInputTokens.defaultValue

    /// Bytes of a text, before it is cut into tokens.
    public var maxTextBytes = 1 << 18

    /// The largest `max_new_tokens`.
    public var maxNewTokens = GatewaySettings.table.maxNewTokens.defaultValue

    /// Ids of a target that is scored.
    public var maxTargetTokens = 512

    /// The largest `top_logprobs`.
    public var maxTopLogprobs = 20

    /// Token ids in a request's lists, such as `bad_words_ids`, all together.
    public var maxListedTokens = 4_096

    /// Stop strings of a request.
    public var maxStopStrings = 16

    /// Bytes of one stop string.
    public var maxStopStringBytes = 256

    /// Entries of the routes that a request returns: tokens times sparse layers, seven bytes each.
    public var maxRouteEntries = 1 << 18

    /// Logits that a score returns: target tokens times the vocabulary, four bytes each.
    public var maxLogits = 1 << 22

    /// Entries of the distributions that a score returns: target tokens times named tokens, eight bytes each.
    public var maxDistributionEntries = 1 << 21

    /// Inputs of one call of Encode or Score; a gateway takes no more than its queue has room for.
    public var maxInputs = 64

    /// Tokens of all inputs of such a call together, targets included.
    public var maxTokensOfInputs = 1 << 14

    /// Bytes that the answers to all inputs of such a call may take together.
    public var maxAnswerBytes = 16 << 20

    /// The largest fraction of its routed tokens that hosts may lose, for requests that name none; 1 accepts any loss.
    public var maxDroppedFraction = GatewaySettings.table.maxDroppedFraction.defaultValue

    /// The priority of requests that name none.
    public var defaultPriority = GatewaySettings.table.defaultPriority.defaultValue

    /// How long a request that does not say may wait for batch slots; zero means as long as its deadline allows.
    public var queueTimeout = GatewaySettings.table.queueTimeout.defaultValue

    /// Creates the default limits.
    public init() {}

    /// The limits of a private process: limits that protect other clients are set very high.
    static var local: RequestLimits {
        var limits = RequestLimits()
        limits.maxInputTokens = 1 << 20
        limits.maxTextBytes = 1 << 24
        limits.maxNewTokens = GenerationParameters.maximumNewTokens
        limits.maxRouteEntries = 1 << 24
        return limits
    }
}
