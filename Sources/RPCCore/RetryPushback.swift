// SPDX-License-Identifier: Apache-2.0

/// What a server says about retrying a call, with `grpc-retry-pushback-ms` in its trailers.
///
/// Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
public enum RetryPushback: Sendable, Hashable {
    /// Nothing: the caller's policy decides.
    case none
    /// Retry after this time.
    case wait(Duration)
    /// Do not retry: the value is negative or not a number.
    case never

    static let key = "grpc-retry-pushback-ms"
    /// A server that asks for more than a day is taken to mean never.
    static let longestMilliseconds: Int64 = 86_400_000

    /// Reads it from a call's trailers.
    ///
    /// - Parameter metadata: The trailers.
    public init(_ metadata: Metadata) {
        guard !metadata.isEmpty, let text = metadata.first(Self.key) else {
            self = .none
            return
        }
        let milliseconds = Int64(text) ?? -1
        self = (0...Self.longestMilliseconds).contains(milliseconds) ? .wait(.milliseconds(milliseconds)) : .never
    }
}

extension RPCError {
    /// Asks the caller to retry after a time, in the trailers.
    ///
    /// - Parameter delay: The time, of which whole milliseconds are sent; a negative time counts as zero, more than a
    ///   day as a day.
    public mutating func askToRetry(after delay: Duration) {
        let bounded = min(max(delay, .zero), .milliseconds(RetryPushback.longestMilliseconds))
        let (seconds, attoseconds) = bounded.components
        // Digits under a constant key are always legal metadata.
        try? self.metadata.add("\(seconds * 1000 + attoseconds / 1_000_000_000_000_000)", forKey: RetryPushback.key)
    }
}
