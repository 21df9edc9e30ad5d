// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

/// Requests whose rows an expert cannot compute, beside requests that never choose that expert, across processes.
@Suite("Requests beside dirty ones", .serialized)
struct DirtyRequestTests {
    /// One expert of one layer.
    private struct Place: Hashable {
        var stack: String
        var block: UInt32
        var expert: Int

        /// The expert's second matrix in the checkpoint.
        var tensor: String {
            "\(self.stack).block.\(self.block).layer.\(self.stack == "encoder" ? 1 : 2).mlp.experts.expert_\(self.expert).wo.weight"
        }
    }

    /// What must stay: the ids, and the bits of their log-probabilities.
    private struct Answer: Hashable {
        var ids: [UInt32]
        var bits: [UInt32]

        init(_ response: GenerateResponse) {
            self.ids = response.generations.flatMap(\.tokenIDs)
            self.bits = response.generations.flatMap { $0.logprobs.map(\.logprob.bitPattern) }
        }
    }

    private static func request(_ text: String, routes: Bool = false, strict: Bool) -> GenerateRequest {
        GenerateRequest(
            input: .text(text),
            parameters: GenerationParameters(maxNewTokens: 6, numBeams: 1, topLogprobs: 1),
            dropPolicy: strict ? DropPolicy(strict: true) : DropPolicy(maxDroppedFraction: 1),
            returnRoutes: routes
        )
    }

    private static func places(_ response: GenerateResponse) -> Set<Place> {
        var places: Set<Place> = []
        let all = [response.encoderRoutes].compactMap { $0 } + response.generations.compactMap(\.decoderRoutes)
        for message in all {
            guard let routes = RoutesReport(message) else { continue }
            for experts in routes.experts {
                for (layer, expert) in experts.enumerated() {
                    places.insert(
                        Place(
                            stack: message.stack == .encoder ? "encoder" : "decoder",
                            block: message.layers[layer],
                            expert: expert
                        )
                    )
                }
            }
        }
        return places
    }

    /// The miniature with one matrix whose products overflow: every number is finite, and larger than 3e38.
    private static func model(overflowing place: Place, in folder: String) throws -> String {
        let path = "\(folder)/model"
        try FileManager.default.copyItem(atPath: TestCluster.miniature, toPath: path)
        let url = URL(fileURLWithPath: "\(path)/model.safetensors")
        var data = try Data(contentsOf: url)
        let length = data.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        let header = try #require(
            try JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any]
        )
        let entry = try #require(header[place.tensor] as? [String: Any], "\(place.tensor)")
        let offsets = try #require(entry["data_offsets"] as? [Int])
        let range = 8 + length + offsets[0]..<8 + length + offsets[1]
        data.replaceSubrange(range, with: Data(repeating: 0x7F, count: range.count))
        try data.write(to: url)
        return path
    }

    @Test("clean requests keep their ids and every bit, and lose nothing, however many dirty ones run beside them")
    func cleanBesideDirty() async throws {
        let texts =
            try TestCluster.prompts().map(\.prompt) + [
                "a", "the", "my horse", "king", "O", "I am", "now", "good night", "<extra_id_0>", "blood", "sir", "we",
            ]
        let (sound, places) = try await self.answers(texts)
        let shared = places.values.reduce(into: [Place: Int]()) { counts, places in
            for place in places { counts[place, default: 0] += 1 }
        }
        // The expert that divides the texts most evenly.
        let place = try #require(
            shared.max { min($0.value, texts.count - $0.value) < min($1.value, texts.count - $1.value) }?.key
        )
        let clean = texts.filter { places[$0]?.contains(place) == false }
        let dirty = texts.filter { places[$0]?.contains(place) == true }
        try #require(clean.count >= 2 && dirty.count >= 2, "\(place): \(clean.count), \(dirty.count)")
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dirty-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let model = try Self.model(overflowing: place, in: folder)
        try await TestCluster.runProcesses(pools: 2, model: model) { cluster in
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                try await Self.mix(clean, dirty, sound, client)
                let description = try await client.describeCluster()
                #expect(description.pools.flatMap(\.replicas).allSatisfy { $0.state == .ready })
            }
        }
    }

    /// The answers of the sound model, each alone, and the experts that each text chose.
    private func answers(_ texts: [String]) async throws -> ([String: Answer], [String: Set<Place>]) {
        let (results, source) = AsyncStream.makeStream(of: (String, Answer, Set<Place>).self)
        try await TestCluster.run(pools: 2) { client, _ in
            for text in texts {
                let response = try await client.generate(Self.request(text, routes: true, strict: true))
                source.yield((text, Answer(response), Self.places(response)))
            }
            source.finish()
        }
        var answers: [String: Answer] = [:]
        var places: [String: Set<Place>] = [:]
        for await (text, answer, chosen) in results {
            answers[text] = answer
            places[text] = chosen
        }
        return (answers, places)
    }

    /// Runs clean and dirty requests at the same time, eight at once.
    private static func mix(
        _ clean: [String],
        _ dirty: [String],
        _ sound: [String: Answer],
        _ client: GatewayClient
    ) async throws {
        var lost = 0
        try await withThrowingTaskGroup(of: UInt32.self) { group in
            for round in 0..<96 {
                if round >= 8 { lost += Int(try await group.next() ?? 0) }
                let isClean = round.isMultiple(of: 2)
                let text = isClean ? clean[round / 2 % clean.count] : dirty[round / 2 % dirty.count]
                group.addTask {
                    let response = try await client.generate(Self.request(text, strict: isClean))
                    let dropped = response.usage?.dropped ?? []
                    if isClean {
                        #expect(Answer(response) == sound[text], "\(text)")
                        #expect(dropped.isEmpty)
                    }
                    return dropped.reduce(0) { $0 + UInt32(clamping: $1.tokens) }
                }
            }
            for try await count in group { lost += Int(count) }
        }
        // Otherwise no request was dirty, and nothing was shown.
        #expect(lost > 0)
    }
}
