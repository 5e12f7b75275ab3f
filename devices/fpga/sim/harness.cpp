// Simulation of the core: runs a command stream on the Verilated core, with a memory whose latency and bandwidth are
// given. Start with `run`.
//
// The memory: a read request is answered `latency` cycles later, in the order of the requests; reads and writes share
// `bandwidth` bytes a cycle (given as bytes a 256 cycles), each at most one word of N bytes a cycle. Commands come
// over a port of their own, one every 64 / N cycles: the time that a bus of N bytes takes for their 64 bytes.
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>

#include "Vcore.h"
#include "verilated.h"

namespace {

constexpr uint64_t kCommandBytes = 64;
constexpr unsigned kCompute = 1;  // of the units load, compute, store
constexpr uint64_t kPatience = 100000;  // cycles without any progress: the stream waits for itself
enum Status { kFine = 0, kOutside = 1, kStuck = 2, kTooLong = 3 };

struct Request {
  uint64_t due, address, words;
};

}  // namespace

extern "C" {

struct Setup {
  uint64_t latency, bandwidth256, most_cycles;
};

// What a run took. stalls[k]: cycles in which the array did nothing, by the core's `activity` code.
struct Counts {
  uint64_t cycles, bytes_read, bytes_written, activity[8], wrong_address;
};

// A command's cycles: its first vector (compute only), its end, and how long the array stood still for it.
struct Record {
  uint64_t begin, end, stall;
};

int width() { return N; }

int run(const uint8_t* commands, uint64_t count, uint8_t* memory, uint64_t bytes, const Setup* setup, Counts* counts,
        Record* records) {
  VerilatedContext context;
  auto core = std::make_unique<Vcore>(&context);
  std::deque<Request> requests;
  std::deque<uint64_t> waiting[3];  // commands that a unit has not finished
  std::deque<uint64_t> not_begun;
  uint64_t cycle = 0, given = 0, next_command = 0, quiet = 0, pending_stall = 0, working = count;
  int64_t credit = 0;
  const int64_t word = int64_t(N) * 256;
  std::memset(counts, 0, sizeof *counts);

  core->rst = 1;
  core->command_valid = core->data_valid = core->read_ready = core->write_ready = core->write_landed = 0;
  for (int k = 0; k < 4; k++) {
    core->clk = 0, core->eval();
    core->clk = 1, core->eval();
  }
  core->rst = 0;
  core->read_ready = 1;
  for (;; cycle++) {
    if (cycle >= setup->most_cycles) return kTooLong;
    credit += int64_t(setup->bandwidth256);
    if (credit > 2 * word + int64_t(setup->bandwidth256)) credit = 2 * word + int64_t(setup->bandwidth256);
    core->command_valid = given < count && cycle >= next_command;
    if (core->command_valid) std::memcpy(&core->command, commands + given * kCommandBytes, kCommandBytes);
    core->clk = 0, core->eval();
    // writes go first: they end what others wait for
    core->write_ready = core->write_valid && credit >= word;
    core->write_landed = core->write_ready && core->write_last;
    if (core->write_ready) credit -= word;
    core->data_valid = !requests.empty() && requests.front().due <= cycle && core->data_ready && credit >= word;
    if (core->data_valid) {
      credit -= word;
      Request& first = requests.front();
      if (first.address + N > bytes) return counts->wrong_address = first.address, kOutside;
      std::memcpy(&core->data, memory + first.address, N);
      first.address += N;
      counts->bytes_read += N;
      if (--first.words == 0) requests.pop_front();
    }
    core->eval();
    bool progress = core->data_valid || core->write_ready || core->activity == 0;
    if (core->command_valid && core->command_ready) {
      const unsigned unit = commands[given * kCommandBytes] & 3;
      waiting[unit].push_back(given);
      if (unit == kCompute) not_begun.push_back(given);
      given++;
      next_command = cycle + (kCommandBytes + N - 1) / N;
      progress = true;
    }
    if (core->read_valid) requests.push_back({cycle + setup->latency, core->read_address, core->read_words});
    if (core->write_ready) {
      if (uint64_t(core->write_address) + N > bytes) return counts->wrong_address = core->write_address, kOutside;
      std::memcpy(memory + core->write_address, &core->write_data, N);
      counts->bytes_written += N;
    }
    counts->activity[core->activity]++;
    if (core->activity == 0) {
      records[working].stall += pending_stall;
      pending_stall = 0;
    } else if (core->activity != 1) {
      pending_stall++;
    }
    if (core->compute_begun) {
      working = not_begun.front();
      not_begun.pop_front();
      records[working].begin = cycle;
    }
    const bool done[3] = {bool(core->load_done), bool(core->compute_done), bool(core->store_done)};
    for (int unit = 0; unit < 3; unit++) {
      if (!done[unit]) continue;
      records[waiting[unit].front()].end = cycle;
      waiting[unit].pop_front();
      progress = true;
    }
    if (given == count && core->idle) break;
    quiet = progress ? 0 : quiet + 1;
    if (quiet > kPatience + setup->latency) return kStuck;
    core->clk = 1, core->eval();
  }
  counts->cycles = cycle;
  core->final();
  return kFine;
}
}
