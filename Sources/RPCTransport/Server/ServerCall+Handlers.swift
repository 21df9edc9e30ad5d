// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

extension ServerCall {
    func start(with request: ByteBuffer) {
        guard let handler = self.handler, let context = self.context else { return }
        let bound = NIOLoopBound(self, eventLoop: self.connection.eventLoop)
        switch handler {
        case .eventLoop(let body):
            body(request, context, UnaryResponder(eventLoop: self.connection.eventLoop, call: bound))
        case .unary(let body):
            let responder = UnaryResponder(eventLoop: self.connection.eventLoop, call: bound)
            self.accept {
                do {
                    responder.finish(.success(try await body(request, context)))
                } catch {
                    responder.finish(.failure(.thrown(error)))
                }
            }
        case .serverStreaming(let body):
            let writer = self.makeWriter(bound)
            self.acceptStreaming { try await body(request, context, writer) }
        case .clientStreaming, .bidirectional:
            break
        }
    }

    func startStreaming(_ handler: ServiceMethod.Handler, _ context: ServerContext) {
        let bound = NIOLoopBound(self, eventLoop: self.connection.eventLoop)
        let eventLoop = self.connection.eventLoop
        let inbox = MessageInbox { eventLoop.execute { bound.value.inboxEmptied() } }
        self.inbox = inbox
        let requests = RequestStream(inbox: inbox)
        switch handler {
        case .clientStreaming(let body):
            let responder = UnaryResponder(eventLoop: eventLoop, call: bound)
            self.accept {
                do {
                    responder.finish(.success(try await body(requests, context)))
                } catch {
                    responder.finish(.failure(.thrown(error)))
                }
            }
        case .bidirectional(let body):
            let writer = self.makeWriter(bound)
            self.acceptStreaming { try await body(requests, context, writer) }
        case .eventLoop, .unary, .serverStreaming:
            break
        }
    }

    func makeWriter(_ bound: NIOLoopBound<ServerCall>) -> ResponseWriter {
        let gate = WriteGate(
            eventLoop: self.connection.eventLoop,
            limitBytes: self.connection.limits.writeBufferBytes,
            submit: { bound.value.submit($0) }
        )
        self.gate = gate
        return ResponseWriter(gate: gate)
    }

    func accept(_ body: @escaping @Sendable () async -> Void) {
        self.connection.accept(AcceptedCall(shared: self.shared, body: body))
    }

    /// Runs a handler that ends the call by returning.
    func acceptStreaming(_ body: @escaping @Sendable () async throws -> Void) {
        let eventLoop = self.connection.eventLoop
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        self.accept {
            do {
                try await body()
                eventLoop.execute { bound.value.finish(.ok) }
            } catch {
                let error = RPCError.thrown(error)
                eventLoop.execute { bound.value.finish(error.status, metadata: error.metadata) }
            }
        }
    }
}
