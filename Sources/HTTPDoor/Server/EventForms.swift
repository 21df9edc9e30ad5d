// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// How a dialect sends a generation as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
protocol EventForm: Sendable {
    /// The events that something which happened makes, each as the value of `data`.
    mutating func events(_ event: GenerationEvent) -> [String]

    /// The events at the end.
    func ending() -> [String]

    /// The event of a fault after the first event.
    func event(of fault: DoorFault) -> String
}

/// OpenAI's chunks, which end with `[DONE]`.
struct CompletionEvents: EventForm {
    let answer: CompletionAnswer
    private var progress = CompletionAnswer.Progress()

    init(answer: CompletionAnswer) { self.answer = answer }

    mutating func events(_ event: GenerationEvent) -> [String] {
        self.answer.chunks(event, &self.progress).map(\.text)
    }

    func ending() -> [String] {
        (self.answer.lastChunk(self.progress).map { [$0.text] } ?? []) + ["[DONE]"]
    }

    func event(of fault: DoorFault) -> String { Dialect.openAI.body(of: fault).text }
}

/// The events of text-generation-inference.
struct TextGenerationEvents: EventForm {
    let answer: TextGenerationAnswer
    private var progress = TextGenerationAnswer.Progress()

    init(answer: TextGenerationAnswer) { self.answer = answer }

    mutating func events(_ event: GenerationEvent) -> [String] {
        self.answer.events(event, &self.progress).map(\.text)
    }

    func ending() -> [String] { [] }

    func event(of fault: DoorFault) -> String { Dialect.textGeneration.body(of: fault).text }
}

/// The gateway's own events: `switchyard.v1.GenerateEvent`, or `{"error": ...}` with a status.
struct OwnEvents: EventForm {
    mutating func events(_ event: GenerationEvent) -> [String] {
        let message =
            switch event {
            case .token(_, let token): GenerateEvent(event: .token(token))
            case .response(_, let response): GenerateEvent(event: .response(response))
            }
        return [OwnForm.json(message, "switchyard.v1.GenerateEvent").text]
    }

    func ending() -> [String] { [] }

    func event(of fault: DoorFault) -> String {
        JSONOutput.object([(name: "error", value: Dialect.own.body(of: fault))]).text
    }
}
