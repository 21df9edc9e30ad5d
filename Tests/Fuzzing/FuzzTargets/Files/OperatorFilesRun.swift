// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import Logging
import RPCTransport
import ServiceKit
import SwitchyardTypes
import WeightFetching

/// What servers of files answer, and the files of an operator: settings, certificates with their keys, tokens.
enum OperatorFilesRun {
    /// A hub's list of a model's files.
    static func hubListing(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        do throws(FetchError) {
            let listing = try HubListing(parsing: bytes, from: try Self.address())
            trace.accept()
            trace.note(size: listing.files.count)
            try Self.expectSizes(listing.files.map(\.byteCount))
            for file in listing.files {
                let names = file.path.split(separator: "/", omittingEmptySubsequences: false)
                let isInside = names.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
                guard isInside else { throw FetchError(.badAnswer, "BROKEN \(file.path)") }
            }
        } catch {
            try expect(!error.message.hasPrefix("BROKEN"), "a file lies inside its model", error.message)
            try expectWords("\(error)", &trace)
        }
    }

    /// What fetching reads of a part's manifest.
    static func partManifest(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        do throws(FetchError) {
            let manifest = try PartManifest(parsing: bytes, from: try Self.address())
            trace.accept()
            trace.note(size: manifest.files.count)
            try Self.expectSizes(manifest.files.map(\.byteCount))
            guard Set(manifest.files.map(\.name)).count == manifest.files.count else {
                throw FetchError(.badAnswer, "BROKEN twice")
            }
        } catch {
            try expect(
                !error.message.hasPrefix("BROKEN"),
                "a file is listed once with a size in its limit",
                error.message
            )
            try expectWords("\(error)", &trace)
        }
    }

    private static func address() throws(FetchError) -> RemoteAddress {
        try RemoteAddress(parsing: "https://host.test/model")
    }

    private static func expectSizes(_ sizes: [Int]) throws(FetchError) {
        guard StatedSizes.total(sizes) != nil else { throw FetchError(.badAnswer, "BROKEN sizes \(sizes)") }
    }

    /// A file of settings and, behind a separator, a file of tokens.
    static func settings(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let parts = FileParts.split(bytes, into: 2)
        try ScratchFolder.with([(name: "settings.json", bytes: parts[0])]) { (folder) throws(FuzzFinding) in
            do throws(Settings.Failure) {
                let known: Set<String> = ["listen", "threads", "plaintext", "pool", "zone", "drain-seconds"]
                let file = try SettingFile("\(folder.path)/settings.json", known: known, elsewhere: ["model"])
                trace.accept()
                trace.note(file.values.count)
                for (key, value) in file.values {
                    _ = Settings.parts(of: value)
                    guard known.contains(key) else { throw Settings.Failure("BROKEN \(key)") }
                }
            } catch {
                try expect(!error.description.hasPrefix("BROKEN"), "an accepted key is known", error.description)
                try expectWords(error.description, &trace)
            }
        }
        do throws(Settings.Failure) {
            let text = String(decoding: parts[1], as: UTF8.self)
            let tokens = try BearerTokens(parsing: text, file: "tokens")
            trace.note(size: tokens.count)
            _ = tokens.holder(of: ["Bearer abcdefghijklmnop"])
            _ = try? ListenAddress(parsing: text)
        } catch {
            try expectWords(error.description, &trace)
        }
    }

    /// A certificate and a key, divided by a separator: as a server's, and as an authority's.
    static func certificates(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let parts = FileParts.split(bytes, into: 2)
        let files = [(name: "c.pem", bytes: parts[0]), (name: "k.pem", bytes: parts[1])]
        try ScratchFolder.with(files) { (folder) throws(FuzzFinding) in
            let options = ServerTLSOptions(
                certificateFile: "\(folder.path)/c.pem",
                keyFile: "\(folder.path)/k.pem",
                clientAuthorityFile: "\(folder.path)/c.pem"
            )
            let tls = ServerTLS(options, logger: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() })
            do {
                try tls.load()
                trace.accept()
                try expect(tls.certificateEnd != nil, "a loaded certificate has an end")
            } catch let finding as FuzzFinding {
                throw finding
            } catch {
                try expectWords("\(error)", &trace)
            }
        }
        do {
            let authority = try CertificateAuthority(
                certificatePEM: String(decoding: parts[0], as: UTF8.self),
                keyPEM: String(decoding: parts[1], as: UTF8.self)
            )
            trace.note(2)
            trace.note(authority.certificatePEM.isEmpty ? 0 : 1)
        } catch {
            try expectWords("\(error)", &trace)
        }
    }
}
