// SPDX-License-Identifier: Apache-2.0

public import RPCTransport
public import ServiceKit

/// How a gateway answers HTTP.
public struct DoorConfiguration: Sendable {
    /// The address to listen on.
    public var host: String
    /// The port to listen on; 0 lets the system choose.
    public var port: Int
    /// The port, bound before the weights are loaded; nil binds it when the door opens.
    public var reservation: PortReservation?
    /// Whether connections are encrypted.
    public var security = ServerSecurity.plaintext
    /// Accepts only requests with a known token; nil accepts every request.
    public var tokens: TokenGate?
    /// The origins whose pages may call, none by default; a star stands for every origin.
    public var origins: [String] = []
    /// The largest body, in bytes.
    public var maxBodyBytes = DoorSettings.table.maxBody.defaultValue
    /// Bytes that the bodies of all requests may take together.
    public var bodyBudgetBytes = 128 << 20
    /// How many connections clients may have; for more, the idlest leave.
    public var maxConnections = 1_000
    /// The largest share of them that one host may have.
    public var connectionShare = 0.75
    /// How long requests may take to finish once the door closes.
    public var drainTimeout = Duration.seconds(30)
    /// How slow clients may be.
    var patience = Patience()

    /// How slow clients may be.
    struct Patience: Sendable {
        /// From the connection to its first request, or to the end of the handshake of TLS.
        var opening = Duration.seconds(10)
        /// Without a request.
        var idle = Duration.seconds(75)
        /// From a request's head to the end of its body.
        var body = Duration.seconds(60)
        /// Without reading anything of what waits to be sent.
        var reading = Duration.seconds(30)
    }

    /// Creates a configuration; everything else has its default.
    ///
    /// - Parameters:
    ///   - host: The address to listen on.
    ///   - port: The port to listen on; 0 lets the system choose.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
}

/// Settings of HTTP on a gateway.
public struct DoorSettings: SettingTable {
    /// The settings.
    package static let table = DoorSettings()

    package let listen = Setting<ListenAddress?>
        .parsed(
            "http-listen",
            default: nil,
            written: "off",
            allowed: "HOST:PORT or off",
            range: "HOST:PORT or off",
            placeholder: "host:port",
            see: "HTTP and JSON",
            "Address of OpenAI's, text-generation-inference's and the gateway's own JSON over HTTP; off serves gRPC alone."
        ) { text in
            text == "off" || text.isEmpty ? .some(nil) : .some(try ListenAddress(parsing: text))
        }
    package let origins = Setting.texts(
        "http-origins",
        placeholder: "origin[,origin]",
        see: "HTTP and JSON",
        "Origins whose pages may call over HTTP, such as https://app.example; * is every origin."
    )
    package let maxBody = Setting.whole(
        "http-max-body-bytes",
        in: 1_024...(1 << 30),
        default: 4 << 20,
        placeholder: "bytes",
        see: "HTTP and JSON",
        "Largest body of a request over HTTP; a larger one is refused with 413."
    )
}
