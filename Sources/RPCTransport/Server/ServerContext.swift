// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
public import RPCCore
internal import SwitchyardTypes

/// Who is at the other end of a server's connection; all its calls share it.
final class Caller: Sendable {
    let address: String
    let identity: PeerIdentity?
    /// The address without its port, or the network that it stands for.
    let host: String
    /// Who calls, as far as the connection tells: its certificate's names, or else its host.
    let name: String

    init(address: String, identity: PeerIdentity?) {
        self.address = address
        self.identity = identity
        let host = address.lastIndex(of: ":").map { String(address[..<$0]) } ?? address
        self.host = ConnectionPlaces.peer(of: host)
        self.name = identity.map { "certificate \($0)" } ?? "host \(self.host)"
    }
}

/// What a handler knows about its call, and what it can send besides its messages.
public struct ServerContext: Sendable {
    /// The method that is called.
    public var method: Method { self.request.method?.method ?? Method(service: "", name: "") }
    /// The caller's own key-value pairs.
    public var metadata: Metadata { self.request.metadata }
    /// When the caller stops waiting; nil means never.
    public var deadline: ContinuousClock.Instant? { self.dueTime?.instant }
    /// The caller's address as text.
    public var peer: String { self.caller.address }
    /// Who the caller is by its certificate; nil on a plaintext connection and for a client without one.
    public var identity: PeerIdentity? { self.caller.identity }

    /// Who calls, for sharing what there is fairly: the name given with ``identify(as:)``, or else the certificate's names,
    /// or else the host.
    public var callerName: String { self.shared.callerName ?? self.caller.name }

    /// Names the caller, which has proved who it is.
    ///
    /// - Parameter name: The name of a token, for example.
    public func identify(as name: String) { self.shared.identify(as: "token \(name)") }

    let caller: Caller
    let dueTime: NIODeadline?
    let request: ReceivedRequest
    let shared: ServerCallShared

    init(
        request: ReceivedRequest,
        dueTime: NIODeadline?,
        caller: Caller,
        shared: ServerCallShared
    ) {
        self.request = request
        self.dueTime = dueTime
        self.caller = caller
        self.shared = shared
    }

    /// Whether no caller waits for the answer any longer: the caller left or the deadline passed.
    public var isCancelled: Bool { self.shared.isCancelled }

    /// Calls a closure once no caller waits for the answer; immediately if that is already so.
    ///
    /// - Parameter body: Called on the connection's event loop, or on the calling thread. Never called after the
    ///   handler itself ended the call.
    public func onCancel(_ body: @escaping @Sendable () -> Void) {
        self.shared.onCancel(body)
    }

    /// Sets the key-value pairs that are sent with the status, in place of those set before.
    ///
    /// - Parameter metadata: The pairs.
    public func setTrailing(_ metadata: Metadata) {
        self.shared.setTrailing(metadata)
    }

    /// Sets the key-value pairs that are sent before the first message, in place of those set before.
    ///
    /// - Parameter metadata: The pairs. They are lost when the first message has been sent.
    public func setInitial(_ metadata: Metadata) {
        self.shared.setInitial(metadata)
    }

    /// Which requests came compressed; nothing unless the server's configuration asks for it.
    package var compressionLog: CompressionLog? { self.shared.compressionLog }
}
