// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import ExpertServing

@Suite
struct ForwardCheckTests {
    private let layer = SparseLayer(stack: .encoder, block: 1)

    private var check: ForwardCheck {
        ForwardCheck(
            fingerprint: 0xAB,
            modelWidth: 4,
            expertCount: 8,
            sparseLayers: [self.layer, SparseLayer(stack: .decoder, block: 3)],
            held: [self.layer: [2, 3]],
            maxRows: 10
        )
    }

    private func envelope(_ change: (inout ForwardRequestEnvelope) -> Void = { _ in }) -> ForwardRequestEnvelope {
        var envelope = ForwardRequestEnvelope(
            modelFingerprint: 0xAB,
            stack: .encoder,
            layer: 1,
            groups: [ExpertRowsMessage(expert: 2, rows: 1), ExpertRowsMessage(expert: 3, rows: 2)],
            tokensShape: [3, 4]
        )
        change(&envelope)
        return envelope
    }

    @Test("A call that fits is work")
    func fits() throws {
        let work = try self.check.check(self.envelope(), tensorByteCount: 48)
        #expect(work.layer == self.layer)
        #expect(work.rows == 3)
        #expect(work.rowType == .float32)
        let half = try self.check.check(self.envelope { $0.tokensDType = .bfloat16 }, tensorByteCount: 24)
        #expect(half.rowType == .bfloat16)
        #expect(work.groups == [.init(expert: 2, rows: 1), .init(expert: 3, rows: 2)])
    }

    @Test("A call for gradients holds a second row for each token row, in FLOAT32")
    func backward() throws {
        let envelope = self.envelope { $0.tokensShape = [6, 4] }
        let work = try self.check.check(envelope, tensorByteCount: 96, isBackward: true)
        #expect(work.isBackward && work.rows == 3)
        #expect(try !self.check.check(self.envelope(), tensorByteCount: 48).isBackward)
        var int8 = self.check
        int8.weightType = .int8
        for (check, envelope, bytes, code, words) in [
            (self.check, self.envelope(), 48, Status.Code.invalidArgument, "rows.shape is [3, 4]"),
            (self.check, envelope, 95, .invalidArgument, "rows.data has 95 bytes"),
            (
                self.check, self.envelope { ($0.tokensShape, $0.tokensDType) = ([6, 4], .bfloat16) }, 48,
                .invalidArgument, "this host takes FLOAT32"
            ),
            (int8, envelope, 96, .failedPrecondition, "int8"),
        ] {
            let error = #expect(throws: RPCError.self) {
                try check.check(envelope, tensorByteCount: bytes, isBackward: true)
            }
            #expect(error?.code == code)
            #expect(error?.message.contains(words) == true, "\(error?.message ?? "no error")")
        }
        #expect(try int8.check(self.envelope(), tensorByteCount: 48).rows == 3)
    }

    /// A wrong call: its name, its fault, the status, and the required words of the message.
    struct Fault: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let code: Status.Code
        let words: [String]
        let change: @Sendable (inout ForwardRequestEnvelope) -> Void
    }

    static let faults: [Fault] = [
        Fault(
            testDescription: "fingerprint",
            code: .failedPrecondition,
            words: ["00000000000000ac", "00000000000000ab"]
        ) {
            $0.modelFingerprint = 0xAC
        },
        Fault(testDescription: "no stack", code: .invalidArgument, words: ["stack", "ENCODER"]) {
            $0.stack = .unspecified
        },
        Fault(testDescription: "dense layer", code: .invalidArgument, words: ["layer 2", "[1]"]) { $0.layer = 2 },
        Fault(testDescription: "no groups", code: .invalidArgument, words: ["groups"]) { $0.groups = [] },
        Fault(testDescription: "no rows", code: .invalidArgument, words: ["groups[0].rows"]) { $0.groups[0].rows = 0 },
        Fault(testDescription: "unknown expert", code: .invalidArgument, words: ["groups[1].expert", "99", "7"]) {
            $0.groups[1].expert = 99
        },
        Fault(testDescription: "expert not held", code: .failedPrecondition, words: ["groups[1].expert 4", "[2, 3]"]) {
            $0.groups[1].expert = 4
        },
        Fault(testDescription: "descending", code: .invalidArgument, words: ["groups[1].expert", "ascending"]) {
            $0.groups[1].expert = 2
        },
        Fault(testDescription: "too many rows", code: .resourceExhausted, words: ["4294967296", "10"]) {
            $0.groups[0].rows = 1
            $0.groups[1].rows = .max
        },
        Fault(testDescription: "type", code: .invalidArgument, words: ["tokens.dtype", "FLOAT32", "BFLOAT16"]) {
            $0.tokensDType = .float16
        },
        Fault(testDescription: "type of weights", code: .invalidArgument, words: ["tokens.dtype", "int8"]) {
            $0.tokensDType = .int8
        },
        Fault(testDescription: "row sum", code: .invalidArgument, words: ["tokens.shape", "[3, 4]"]) {
            $0.tokensShape = [4, 4]
        },
        Fault(testDescription: "width", code: .invalidArgument, words: ["tokens.shape", "[3, 4]"]) {
            $0.tokensShape = [3, 5]
        },
    ]

    @Test("A call that does not fit is refused with the field, the limit and the value", arguments: Self.faults)
    func refusals(fault: Fault) throws {
        let error = #expect(throws: RPCError.self) {
            try self.check.check(self.envelope(fault.change), tensorByteCount: 48)
        }
        #expect(error?.code == fault.code)
        for word in fault.words {
            #expect(error?.message.contains(word) == true, "\(error?.message ?? "no error") lacks \(word)")
        }
    }

    @Test("A tensor with too few or too many bytes is refused", arguments: [0, 47, 49])
    func bytes(count: Int) {
        let error = #expect(throws: RPCError.self) {
            try self.check.check(self.envelope(), tensorByteCount: count)
        }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("48") == true)
    }
}
