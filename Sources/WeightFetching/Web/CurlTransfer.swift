// SPDX-License-Identifier: Apache-2.0

internal import CCurl
internal import Foundation

/// One request in libcurl's hands; it belongs to the loop's thread alone.
final class CurlTransfer {
    private static let receiveBytes = 128 << 10

    let handle: UnsafeMutableRawPointer
    let exchange: WebExchange
    private let errors: UnsafeMutablePointer<CChar>
    private var fields: UnsafeMutablePointer<curl_slist>?
    private var head = ResponseHead()
    private var isHeadTooLong = false
    /// When the head must be here; curl only watches for silence, so a server that sends byte after byte would never
    /// time out.
    private let headDeadline: ContinuousClock.Instant

    /// Prepares a request.
    ///
    /// - Throws: ``WebFailure`` where libcurl cannot take it.
    init(_ exchange: WebExchange) throws(WebFailure) {
        guard let handle = curl_easy_init() else {
            throw WebFailure(reason: "libcurl has no memory for a request", isPassing: false)
        }
        self.handle = handle
        self.exchange = exchange
        self.errors = .allocate(capacity: Int(CURL_ERROR_SIZE))
        self.errors.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        self.headDeadline = .now + exchange.configuration.connectTimeout + exchange.configuration.silenceTimeout
        let code = self.setUp()
        guard code == CURLE_OK else {
            throw WebFailure(
                reason: "libcurl rejected the request (\(String(cString: curl_easy_strerror(code))))",
                isPassing: false
            )
        }
    }

    deinit {
        curl_easy_cleanup(self.handle)
        curl_slist_free_all(self.fields)
        self.errors.deallocate()
    }

    // MARK: - Options

    private func setUp() -> CURLcode {
        let configuration = self.exchange.configuration
        for header in self.exchange.request.headers {
            guard let fields = curl_slist_append(self.fields, "\(header.name): \(header.value)") else {
                return CURLE_OUT_OF_MEMORY
            }
            self.fields = fields
        }
        let numbers: [(CURLoption, Int)] = [
            // The caller follows redirects, since it knows which headers may go along.
            (CURLOPT_FOLLOWLOCATION, 0),
            // Several connections are several streams of bytes; one HTTP/2 connection would be one.
            (CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1),
            (CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2),
            (CURLOPT_SSL_VERIFYPEER, 1), (CURLOPT_SSL_VERIFYHOST, 2),
            // The path is sent as given.
            (CURLOPT_PATH_AS_IS, 1),
            // A proxy's answer to CONNECT is not the server's.
            (CURLOPT_SUPPRESS_CONNECT_HEADERS, 1),
            (CURLOPT_NOSIGNAL, 1), (CURLOPT_BUFFERSIZE, Self.receiveBytes),
            (CURLOPT_CONNECTTIMEOUT_MS, max(1, configuration.connectTimeout.milliseconds)),
            (CURLOPT_LOW_SPEED_LIMIT, 1),
            (CURLOPT_LOW_SPEED_TIME, max(1, (configuration.silenceTimeout.milliseconds + 999) / 1_000)),
        ]
        for (option, value) in numbers {
            let code = switchyard_curl_set_number(self.handle, option, value)
            guard code == CURLE_OK else { return code }
        }
        var texts: [(CURLoption, String?)] = [
            (CURLOPT_URL, self.exchange.request.address.url.absoluteString),
            (CURLOPT_USERAGENT, configuration.userAgent),
        ]
        // Where a file is named, its authorities are taken and no others.
        if let file = configuration.authorityFile { texts += [(CURLOPT_CAINFO, file), (CURLOPT_CAPATH, nil)] }
        for (option, value) in texts {
            let code = switchyard_curl_set_text(self.handle, option, value)
            guard code == CURLE_OK else { return code }
        }
        for code in [
            switchyard_curl_set_protocols(self.handle), switchyard_curl_set_headers(self.handle, self.fields),
            switchyard_curl_set_errors(self.handle, self.errors), self.setReceiver(),
        ] where code != CURLE_OK {
            return code
        }
        return CURLE_OK
    }

    /// Safety: the callbacks run inside the loop's calls of libcurl, and the loop holds the transfer as long as the handle
    /// is in its hands.
    private func setReceiver() -> CURLcode {
        switchyard_curl_set_receiver(
            self.handle,
            { bytes, size, count, receiver in
                CurlTransfer.from(receiver)?.receiveLine(UnsafeRawBufferPointer(start: bytes, count: size * count)) ?? 0
            },
            { bytes, size, count, receiver in
                CurlTransfer.from(receiver)?.receiveBody(UnsafeRawBufferPointer(start: bytes, count: size * count)) ?? 0
            },
            { receiver, _, _, _, _ in CurlTransfer.from(receiver)?.isLate == false ? 0 : 1 },
            Unmanaged.passUnretained(self).toOpaque()
        )
    }

    private static func from(_ receiver: UnsafeMutableRawPointer?) -> CurlTransfer? {
        receiver.map { Unmanaged<CurlTransfer>.fromOpaque($0).takeUnretainedValue() }
    }

    // MARK: - What comes

    private var isLate: Bool { !self.head.isComplete && ContinuousClock.now > self.headDeadline }

    /// - Returns: The bytes that were taken; fewer than arrived end the transfer.
    private func receiveLine(_ line: UnsafeRawBufferPointer) -> Int {
        do {
            if let head = try self.head.add(line) { self.exchange.receive(head) }
            return line.count
        } catch {
            self.isHeadTooLong = true
            return 0
        }
    }

    private func receiveBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        self.exchange.receive(bytes) ? bytes.count : Int(CURL_WRITEFUNC_PAUSE)
    }

    /// Tells the reader how it ended.
    func finish(_ code: CURLcode) {
        guard code != CURLE_OK else {
            guard self.head.isComplete else {
                return self.exchange.end(.failure(WebFailure(reason: "the answer was cut off", isPassing: true)))
            }
            return self.exchange.end(.success(()))
        }
        if code == CURLE_SSL_CACERT_BADFILE {
            return self.exchange.end(.failure(CurlReason.badAuthorities(self.exchange.configuration)))
        }
        let situation = CurlReason(
            code: code,
            host: self.exchange.request.address.host,
            words: String(cString: self.errors),
            proxyStatus: switchyard_curl_number(self.handle, CURLINFO_HTTP_CONNECTCODE),
            verification: switchyard_curl_number(self.handle, CURLINFO_SSL_VERIFYRESULT),
            wasConnected: switchyard_curl_was_connected(self.handle) != 0,
            isHeadTooLong: self.isHeadTooLong
        )
        self.exchange.end(.failure(situation.failure))
    }
}

extension Duration {
    /// Whole milliseconds, rounded down.
    fileprivate var milliseconds: Int {
        Int(clamping: self.components.seconds).multipliedReportingOverflow(by: 1_000).partialValue
            + Int(self.components.attoseconds / 1_000_000_000_000_000)
    }
}
