// SPDX-License-Identifier: Apache-2.0

/// What a server's refusal means, and what to do about it.
enum AnswerText {
    /// The failure that an answer means.
    ///
    /// - Parameters:
    ///   - response: The head of the answer.
    ///   - what: What was requested.
    ///   - address: Where.
    /// - Returns: The failure, with the server's own words where a header has some.
    static func failure(_ response: FileTransfer.Response, what: String, at address: RemoteAddress) -> FetchError {
        let place = "\(what): \(address) answered \(response.status)\(Self.words(response))"
        switch response.status {
        case 401:
            return FetchError(
                .denied,
                "\(place): it requires a login; set HF_TOKEN for the hub, or give user and password in the address"
            )
        case 403:
            return FetchError(
                .denied,
                "\(place): access is denied; check that the address is right and its signature or token still valid"
            )
        case 404, 410:
            return FetchError(.notFound, "\(place): not found; check the address")
        case 407, 400..<500:
            return FetchError(.badAnswer, "\(place): the server refused the request; check the address")
        default:
            return FetchError(.badAnswer, "\(place): that does not answer a request for a file; try another server")
        }
    }

    /// What the server says in the hub's header for messages.
    private static func words(_ response: FileTransfer.Response) -> String {
        guard let text = response.headers["x-error-message"], !text.isEmpty else { return "" }
        let plain = text.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7F }
        return " (\(String(String.UnicodeScalarView(plain)).prefix(200)))"
    }
}
