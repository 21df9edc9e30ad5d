// SPDX-License-Identifier: Apache-2.0

internal import CCurl

/// What libcurl says about a failed transfer, and what it means: a pure value.
struct CurlReason {
    /// OpenSSL's results for certificates that are not yet valid, or no longer valid.
    private static let badTimes = [9, 10]
    /// OpenSSL's results for a host name and for an address that a certificate does not have; 0 and 1 where curl itself
    /// compares the names, before it asks for OpenSSL's result.
    private static let badNames = [0, 1, 62, 64]

    var code: CURLcode
    /// The server.
    var host: String
    /// The library's own words; empty where it has none.
    var words = ""
    /// The status that a proxy answered `CONNECT` with; 0 where none did.
    var proxyStatus = 0
    /// OpenSSL's result of verifying the server's certificate.
    var verification = 0
    /// Whether the connection was established.
    var wasConnected = false
    var isHeadTooLong = false

    /// The failure, in words that say what to do.
    var failure: WebFailure {
        if self.proxyStatus != 0, !(200..<300).contains(self.proxyStatus) { return self.refusedByProxy }
        switch self.code {
        case CURLE_PEER_FAILED_VERIFICATION:
            return WebFailure(reason: self.certificate, isPassing: false)
        case CURLE_OPERATION_TIMEDOUT where !self.wasConnected:
            return WebFailure(reason: "could not connect to \(self.host) in time", isPassing: true)
        case CURLE_OPERATION_TIMEDOUT, CURLE_ABORTED_BY_CALLBACK:
            return WebFailure(reason: "no bytes arrived for too long", isPassing: true)
        case CURLE_WRITE_ERROR where self.isHeadTooLong:
            return WebFailure(
                reason:
                    "\(self.host) answers with headers of more than \(ResponseHead.mostBytes) bytes; check the "
                    + "address",
                isPassing: false
            )
        case CURLE_GOT_NOTHING:
            return WebFailure(reason: "the connection was closed", isPassing: true)
        case CURLE_PARTIAL_FILE:
            return WebFailure(reason: "the answer was cut off", isPassing: true)
        case CURLE_COULDNT_RESOLVE_PROXY:
            return WebFailure(
                reason: "the proxy cannot be resolved (\(self.text)); correct https_proxy, http_proxy or all_proxy",
                isPassing: true
            )
        default:
            return WebFailure(reason: "the connection failed (\(self.text))", isPassing: true)
        }
    }

    private var text: String {
        self.words.isEmpty ? String(cString: curl_easy_strerror(self.code)) : String(self.words.prefix(300))
    }

    private var certificate: String {
        let subject = "the certificate of \(self.host)"
        if Self.badNames.contains(self.verification) {
            return "\(subject) is for another name; use the name that it is for"
        }
        if Self.badTimes.contains(self.verification) {
            return "\(subject) is not valid now; check this machine's clock, or have the certificate renewed"
        }
        return "\(subject) is not signed by an authority that this machine trusts; name the authority's file with "
            + "--fetch-ca or SSL_CERT_FILE, or install the system's (ca-certificates)"
    }

    private var refusedByProxy: WebFailure {
        if self.proxyStatus == 407 {
            return WebFailure(
                reason: "the proxy requires a login (407); give user and password in https_proxy, such as "
                    + "http://USER:PASSWORD@PROXY:3128",
                isPassing: false
            )
        }
        return WebFailure(
            reason:
                "the proxy does not connect to \(self.host) (\(self.proxyStatus)); allow it there, or name the "
                + "host in no_proxy",
            isPassing: self.proxyStatus >= 500
        )
    }

    /// The failure of a file with authorities that cannot be read.
    static func badAuthorities(_ configuration: WebClientConfiguration) -> FetchError {
        guard let file = configuration.authorityFile else {
            return FetchError(
                .invalidArgument,
                "this machine has no authorities to check certificates with; install them (ca-certificates), "
                    + "or name a PEM file with --fetch-ca or SSL_CERT_FILE"
            )
        }
        return FetchError(
            .invalidArgument,
            "\(file): cannot be read as certificates of authorities; name a PEM file with --fetch-ca or SSL_CERT_FILE"
        )
    }
}
