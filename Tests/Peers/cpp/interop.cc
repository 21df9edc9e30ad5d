// SPDX-License-Identifier: Apache-2.0
//
// Runs some of gRPC's interop cases with gRPC's C++ library and prints the outcome of each as JSON.
//
//   cpp_interop ADDRESS

#include "report.h"

// The generated code for the services needs the same headers as this file, so they are compiled together.
#include "interop/test.grpc.pb.cc"

using namespace grpc::testing;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds patience(60000);
const int sizes[] = {31415, 9, 2653, 58979};
const int fillings[] = {27182, 8, 1828, 45904};

void expect_zeros(const Payload &payload, size_t size) {
    expect(payload.body() == std::string(size, '\0'), std::to_string(payload.body().size()) + " bytes came");
}

SimpleRequest large() {
    SimpleRequest request;
    request.set_response_size(314159);
    request.mutable_payload()->set_body(std::string(271828, '\0'));
    return request;
}

StreamingOutputCallRequest duplex(int size, int filling) {
    StreamingOutputCallRequest request;
    request.add_response_parameters()->set_size(size);
    request.mutable_payload()->set_body(std::string(filling, '\0'));
    return request;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr << "usage: cpp_interop ADDRESS" << std::endl;
        return 2;
    }
    auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
    auto stub = TestService::NewStub(channel);
    Report report;

    report.run("empty_unary", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        Empty response;
        expect_ok(stub->EmptyCall(&context, {}, &response));
    });
    report.run("large_unary", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        SimpleResponse response;
        expect_ok(stub->UnaryCall(&context, large(), &response));
        expect_zeros(response.payload(), 314159);
    });
    report.run("client_streaming", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        StreamingInputCallResponse response;
        auto writer = stub->StreamingInputCall(&context, &response);
        for (int filling : fillings) {
            StreamingInputCallRequest request;
            request.mutable_payload()->set_body(std::string(filling, '\0'));
            expect(writer->Write(request), "a write failed");
        }
        writer->WritesDone();
        expect_ok(writer->Finish());
        expect(response.aggregated_payload_size() == 74922, "another size was counted");
    });
    report.run("server_streaming", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        StreamingOutputCallRequest request;
        for (int size : sizes) request.add_response_parameters()->set_size(size);
        auto reader = stub->StreamingOutputCall(&context, request);
        StreamingOutputCallResponse response;
        for (int size : sizes) {
            expect(reader->Read(&response), "a response is missing");
            expect_zeros(response.payload(), size);
        }
        expect(!reader->Read(&response), "more than four responses");
        expect_ok(reader->Finish());
    });
    report.run("ping_pong", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        auto stream = stub->FullDuplexCall(&context);
        StreamingOutputCallResponse response;
        for (int index = 0; index < 4; index++) {
            expect(stream->Write(duplex(sizes[index], fillings[index])), "a write failed");
            expect(stream->Read(&response), "a response is missing");
            expect_zeros(response.payload(), sizes[index]);
        }
        stream->WritesDone();
        expect(!stream->Read(&response), "more than four responses");
        expect_ok(stream->Finish());
    });
    report.run("empty_stream", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        auto stream = stub->FullDuplexCall(&context);
        stream->WritesDone();
        StreamingOutputCallResponse response;
        expect(!stream->Read(&response), "a response that nobody asked for");
        expect_ok(stream->Finish());
    });
    report.run("cancel_after_first_response", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        auto stream = stub->FullDuplexCall(&context);
        StreamingOutputCallResponse response;
        expect(stream->Write(duplex(31415, 27182)), "a write failed");
        expect(stream->Read(&response), "a response is missing");
        context.TryCancel();
        expect_status(stream->Finish(), grpc::StatusCode::CANCELLED);
    });
    report.run("timeout_on_sleeping_server", [&] {
        grpc::ClientContext context;
        set_deadline(context, milliseconds(20));
        auto stream = stub->FullDuplexCall(&context);
        auto request = duplex(31415, 27182);
        request.mutable_response_parameters(0)->set_interval_us(5000000);
        stream->Write(request);
        StreamingOutputCallResponse response;
        expect(!stream->Read(&response), "the sleeping server answered");
        expect_status(stream->Finish(), grpc::StatusCode::DEADLINE_EXCEEDED);
    });
    report.run("custom_metadata", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        context.AddMetadata("x-grpc-test-echo-initial", "test_initial_metadata_value");
        context.AddMetadata("x-grpc-test-echo-trailing-bin", "\xab\xab\xab");
        SimpleResponse response;
        expect_ok(stub->UnaryCall(&context, large(), &response));
        auto initial = context.GetServerInitialMetadata().find("x-grpc-test-echo-initial");
        expect(initial != context.GetServerInitialMetadata().end(), "no initial metadata");
        expect(initial->second == "test_initial_metadata_value", "other initial metadata");
        auto trailing = context.GetServerTrailingMetadata().find("x-grpc-test-echo-trailing-bin");
        expect(trailing != context.GetServerTrailingMetadata().end(), "no trailing metadata");
        expect(trailing->second == "\xab\xab\xab", "other trailing metadata");
    });
    report.run("status_code_and_message", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        SimpleRequest request;
        request.mutable_response_status()->set_code(2);
        request.mutable_response_status()->set_message("test status message");
        SimpleResponse response;
        auto status = stub->UnaryCall(&context, request, &response);
        expect_status(status, grpc::StatusCode::UNKNOWN);
        expect(status.error_message() == "test status message", status.error_message());
    });
    report.run("unimplemented_method", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        Empty response;
        expect_status(stub->UnimplementedCall(&context, {}, &response), grpc::StatusCode::UNIMPLEMENTED);
    });
    report.run("unimplemented_service", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        Empty response;
        auto unknown = UnimplementedService::NewStub(channel);
        expect_status(unknown->UnimplementedCall(&context, {}, &response), grpc::StatusCode::UNIMPLEMENTED);
    });
    report.print();
    return 0;
}
