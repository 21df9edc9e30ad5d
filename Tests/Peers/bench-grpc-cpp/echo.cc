// SPDX-License-Identifier: Apache-2.0
//
// gRPC C++'s end of `switchyard-bench rpc`: unary calls that echo raw bytes.
//
//   echo server --cpu N --address-file FILE      serves until its input closes
//   echo client --cpu N --address HOST:PORT --bytes N --calls N
//
// The client prints one line of JSON: p50_us and p99_us of calls one after another, calls_per_second with 64 in flight.
// Messages are byte buffers on both ends, so nothing is spent on protobuf.

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/async_unary_call.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/impl/codegen/method_handler.h>
#include <grpcpp/impl/codegen/rpc_service_method.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr char kMethod[] = "/switchyard.bench.v1.Echo/Echo";
constexpr int kInFlight = 64;

using Arguments = std::map<std::string, std::string>;
using Clock = std::chrono::steady_clock;

// Threads that gRPC starts later inherit the binding.
void BindTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0) std::perror("sched_setaffinity");
}

class EchoService final : public grpc::Service {
 public:
  EchoService() {
    AddMethod(new grpc::internal::RpcServiceMethod(
        kMethod, grpc::internal::RpcMethod::NORMAL_RPC,
        new grpc::internal::RpcMethodHandler<EchoService, grpc::ByteBuffer, grpc::ByteBuffer>(
            [](EchoService*, grpc::ServerContext*, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) {
              *reply = *request;
              return grpc::Status::OK;
            },
            this)));
  }
};

int Serve(Arguments& arguments) {
  EchoService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "the server could not listen\n");
    return 1;
  }
  const std::string path = arguments["address-file"];
  const std::string unfinished = path + ".new";
  FILE* file = std::fopen(unfinished.c_str(), "w");
  if (!file) {
    std::perror(unfinished.c_str());
    return 1;
  }
  std::fprintf(file, "127.0.0.1:%d\n", port);
  std::fclose(file);
  std::rename(unfinished.c_str(), path.c_str());
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return 0;
}

// One of the calls in flight; started again when it has ended.
struct Call {
  grpc::ByteBuffer reply;
  grpc::Status status;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
};

int Measure(Arguments& arguments) {
  grpc::ChannelArguments options;
  options.SetMaxReceiveMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(arguments["address"], grpc::InsecureChannelCredentials(), options);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
    std::fprintf(stderr, "no connection to %s\n", arguments["address"].c_str());
    return 1;
  }
  const grpc::internal::RpcMethod method(kMethod, grpc::internal::RpcMethod::NORMAL_RPC, channel);
  const std::string bytes(std::stoul(arguments["bytes"]), '\7');
  grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  const int calls = std::stoi(arguments["calls"]);

  std::vector<double> times;
  times.reserve(calls);
  for (int i = -calls / 10; i < calls; i++) {
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
    const auto start = Clock::now();
    const grpc::Status status = grpc::internal::BlockingUnaryCall(channel.get(), method, &context, request, &reply);
    if (!status.ok() || reply.Length() != bytes.size()) {
      std::fprintf(stderr, "a call failed: %s\n", status.error_message().c_str());
      return 1;
    }
    if (i >= 0) times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());

  grpc::CompletionQueue queue;
  std::vector<Call> slots(kInFlight);
  int started = 0;
  auto begin = [&](Call& call) {
    started++;
    call.context = std::make_unique<grpc::ClientContext>();
    call.reader.reset(grpc::internal::ClientAsyncResponseReaderHelper::Create<grpc::ByteBuffer>(
        channel.get(), &queue, method, call.context.get(), request));
    call.reader->StartCall();
    call.reader->Finish(&call.reply, &call.status, &call);
  };
  const auto start = Clock::now();
  for (Call& call : slots) begin(call);
  for (int done = 0; done < calls; done++) {
    void* tag = nullptr;
    bool ok = false;
    if (!queue.Next(&tag, &ok)) return 1;
    Call& call = *static_cast<Call*>(tag);
    if (!ok || !call.status.ok()) {
      std::fprintf(stderr, "a call failed: %s\n", call.status.error_message().c_str());
      return 1;
    }
    call.reply.Clear();
    if (started < calls) begin(call);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("{\"p50_us\": %.2f, \"p99_us\": %.2f, \"calls_per_second\": %.0f}\n", times[times.size() / 2],
              times[times.size() * 99 / 100], calls / seconds);
  return 0;
}

}  // namespace

int main(int count, char** values) {
  const std::string role = count > 1 ? values[1] : "";
  Arguments arguments;
  for (int i = 2; i + 1 < count; i += 2) arguments[std::string(values[i]).substr(2)] = values[i + 1];
  if (!arguments["cpu"].empty()) BindTo(std::stoi(arguments["cpu"]));
  if (role == "server" && !arguments["address-file"].empty()) return Serve(arguments);
  if (role == "client" && !arguments["address"].empty() && !arguments["bytes"].empty() && !arguments["calls"].empty()) {
    return Measure(arguments);
  }
  std::fprintf(stderr, "usage: %s server|client --cpu N ...; see the head of the source\n", values[0]);
  return 2;
}
