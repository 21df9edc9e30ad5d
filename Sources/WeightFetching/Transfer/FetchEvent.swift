// SPDX-License-Identifier: Apache-2.0

/// What happens while weights are fetched, for people.
public enum FetchEvent: Sendable, Hashable {
    /// The number of bytes of all files that are on this machine.
    case progress(label: String, completed: Int, total: Int)
    /// Something failed and is retried after a wait.
    case retry(reason: String, wait: Duration)
    /// Another process is fetching the same; waiting for it.
    case waiting(what: String)
    /// Something that the user should know.
    case warning(String)
}

/// What a file took.
public struct FetchedFile: Sendable, Hashable {
    /// Where a file came from.
    public enum Origin: String, Sendable, Hashable {
        /// All of it over the network.
        case fetched
        /// Its beginning was here, the rest came over the network.
        case resumed
        /// It was here.
        case present
    }

    /// The file's name in the model or in the shard.
    public var name: String
    /// Its size in bytes.
    public var byteCount: Int
    /// Bytes that came over the network.
    public var receivedBytes: Int
    /// Where it came from.
    public var origin: Origin
}
