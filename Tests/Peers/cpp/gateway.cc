// SPDX-License-Identifier: Apache-2.0
//
// Calls a gateway with gRPC's C++ library and prints the outcome of each check as JSON.
//
//   cpp_gateway ADDRESS TEXT TOKEN_ID...
//
// The ids are the ones that the gateway must give for the text.

#include "report.h"

// The generated code for the services needs the same headers as this file, so they are compiled together.
#include "switchyard/v1/gateway.grpc.pb.cc"
#include "grpc/health/v1/health.grpc.pb.cc"

using namespace switchyard::v1;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds patience(60000);

std::vector<uint32_t> ids_of(const GenerateResponse &response) {
    expect(response.generations_size() == 1, "not one generation");
    const auto &ids = response.generations(0).token_ids();
    return {ids.begin(), ids.end()};
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) {
        std::cerr << "usage: cpp_gateway ADDRESS TEXT TOKEN_ID..." << std::endl;
        return 2;
    }
    GenerateRequest request;
    request.set_text(argv[2]);
    std::vector<uint32_t> expected;
    for (int index = 3; index < argc; index++) expected.push_back(std::stoul(argv[index]));

    auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
    auto gateway = Gateway::NewStub(channel);
    Report report;

    report.run("generate", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        GenerateResponse response;
        expect_ok(gateway->Generate(&context, request, &response));
        expect(ids_of(response) == expected, "other tokens came");
    });
    report.run("generate_stream", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        auto stream = gateway->GenerateStream(&context, request);
        std::vector<uint32_t> tokens;
        GenerateEvent event, last;
        while (stream->Read(&event)) {
            if (event.has_token()) tokens.push_back(event.token().token_id());
            last = event;
        }
        expect_ok(stream->Finish());
        expect(tokens == expected, "other tokens came");
        expect(ids_of(last.response()) == expected, "the last event has other tokens");
    });
    report.run("health", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        grpc::health::v1::HealthCheckRequest check;
        check.set_service("switchyard.v1.Gateway");
        grpc::health::v1::HealthCheckResponse response;
        expect_ok(grpc::health::v1::Health::NewStub(channel)->Check(&context, check, &response));
        expect(response.status() == grpc::health::v1::HealthCheckResponse::SERVING, "not SERVING");
    });
    report.run("health_list", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        grpc::health::v1::HealthListResponse response;
        expect_ok(grpc::health::v1::Health::NewStub(channel)->List(&context, {}, &response));
        expect(response.statuses().count("") == 1, "the server as a whole is missing");
        auto status = response.statuses().find("switchyard.v1.Gateway");
        expect(status != response.statuses().end(), "the gateway is missing");
        expect(status->second.status() == grpc::health::v1::HealthCheckResponse::SERVING, "not SERVING");
    });
    report.run("invalid", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        GenerateRequest wrong = request;
        wrong.mutable_parameters()->set_do_sample(true);
        wrong.mutable_parameters()->set_temperature(-1);
        GenerateResponse response;
        auto status = gateway->Generate(&context, wrong, &response);
        expect_status(status, grpc::StatusCode::INVALID_ARGUMENT);
        expect(status.error_message().find("temperature") != std::string::npos, status.error_message());
    });
    report.run("deadline", [&] {
        grpc::ClientContext context;
        set_deadline(context, milliseconds(20));
        GenerateRequest endless = request;
        endless.mutable_parameters()->set_max_new_tokens(512);
        endless.mutable_parameters()->set_min_new_tokens(512);
        GenerateResponse response;
        expect_status(gateway->Generate(&context, endless, &response), grpc::StatusCode::DEADLINE_EXCEEDED);
    });
    report.run("cancel", [&] {
        grpc::ClientContext context;
        set_deadline(context, patience);
        GenerateRequest endless = request;
        endless.mutable_parameters()->set_max_new_tokens(512);
        endless.mutable_parameters()->set_min_new_tokens(512);
        auto stream = gateway->GenerateStream(&context, endless);
        GenerateEvent event;
        expect(stream->Read(&event), "no first event");
        context.TryCancel();
        while (stream->Read(&event)) {
        }
        expect_status(stream->Finish(), grpc::StatusCode::CANCELLED);
    });
    report.print();
    return 0;
}
