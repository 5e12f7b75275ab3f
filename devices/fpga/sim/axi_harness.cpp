// Simulation of the core as a board has it: registers over AXI4-Lite, a memory over AXI4. Start with `board_open`;
// `board_read` and `board_write` are what a driver's access to a register is.
//
// The memory is as awkward as AXI allows: every ready and valid is drawn by chance, a burst is read when its address is
// taken, and written only when its response is given. What the core does against the rules of AXI is noted as a fault.
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "Vcore.h"
#include "verilated.h"

namespace {

constexpr unsigned kPage = 4096, kIncrementing = 1;
constexpr unsigned kSize = __builtin_ctz(N);

struct Setup {
  uint64_t base, latency;
  uint32_t seed, stall256;  // chances in 256 that a channel stands still in a cycle
};

struct Beat {
  uint64_t due;
  bool last;
  uint8_t bytes[N];
};

struct Burst {
  uint64_t address;
  unsigned beats;
};

struct Answer {
  uint64_t due, address;
  std::vector<uint8_t> bytes;
};

// An address channel as the core drives it, to see whether it keeps what it offers until it is taken.
struct Offer {
  bool open = false;
  uint64_t address = 0;
  unsigned length = 0;
};

struct Board {
  VerilatedContext context;
  Vcore top{&context};
  uint8_t* memory;
  uint64_t bytes, cycle = 0;
  Setup setup;
  std::mt19937 chance;
  std::string fault;
  std::deque<Beat> data, commands;      // read and not yet given
  std::deque<Burst> write_bursts;       // addresses without all of their words
  std::vector<uint8_t> words;           // of the first of them
  std::deque<Answer> answers;
  Offer read_offer, command_offer, write_offer;

  Board(uint8_t* memory, uint64_t bytes, const Setup& setup)
      : memory(memory), bytes(bytes), setup(setup), chance(setup.seed) {}

  bool goes() { return (chance() & 255) >= setup.stall256; }

  void blame(const std::string& what, uint64_t address) {
    if (fault.empty()) fault = what + " at address " + std::to_string(address) + ", cycle " + std::to_string(cycle);
  }

  // What every burst has to keep to; false: its words are not in the memory.
  bool check(const char* channel, Offer& offer, bool ready, uint64_t address, unsigned length, unsigned size,
             unsigned kind) {
    const std::string name = channel;
    if (offer.open && (offer.address != address || offer.length != length)) blame(name + " changed", address);
    offer = {!ready, address, length};
    const uint64_t span = uint64_t(length + 1) * N;
    if (size != kSize || kind != kIncrementing) blame(name + " is of another size or kind", address);
    if (address % N) blame(name + " is not aligned", address);
    if (address / kPage != (address + span - 1) / kPage) blame(name + " crosses 4096 bytes", address);
    const bool inside = address >= setup.base && address - setup.base + span <= bytes;
    if (!inside) blame(name + " is outside the memory", address);
    return inside;
  }

  void read(std::deque<Beat>& queue, uint64_t address, unsigned length) {
    for (unsigned k = 0; k <= length; k++) {
      Beat beat{cycle + setup.latency, k == length, {}};
      std::memcpy(beat.bytes, memory + (address - setup.base) + uint64_t(k) * N, N);
      queue.push_back(beat);
    }
  }

  void take_word() {
    const uint8_t* word = reinterpret_cast<const uint8_t*>(&top.m_axi_data_wdata);
    words.insert(words.end(), word, word + N);
    const Burst burst = write_bursts.front();
    const bool whole = words.size() == size_t(burst.beats) * N;
    if (whole != bool(top.m_axi_data_wlast)) blame("a burst has another length than it said", burst.address);
    if (!whole) return;
    answers.push_back({cycle + setup.latency, burst.address, words});
    words.clear();
    write_bursts.pop_front();
  }

  // One cycle: what the memory offers was drawn before, and stays until it is taken.
  void step() {
    top.m_axi_data_arready = goes();
    top.m_axi_commands_arready = goes();
    top.m_axi_data_awready = goes();
    top.m_axi_data_wready = !write_bursts.empty() && goes();
    offer(data, top.m_axi_data_rvalid, &top.m_axi_data_rdata, top.m_axi_data_rlast);
    offer(commands, top.m_axi_commands_rvalid, &top.m_axi_commands_rdata, top.m_axi_commands_rlast);
    if (!top.m_axi_data_bvalid && !answers.empty() && answers.front().due <= cycle && goes()) {
      const Answer& answer = answers.front();
      std::memcpy(memory + (answer.address - setup.base), answer.bytes.data(), answer.bytes.size());
      answers.pop_front();
      top.m_axi_data_bvalid = 1;
    }
    top.aclk = 0, top.eval();
    if (top.m_axi_data_arvalid) {
      const bool inside = check("a read", read_offer, top.m_axi_data_arready, top.m_axi_data_araddr,
                                top.m_axi_data_arlen, top.m_axi_data_arsize, top.m_axi_data_arburst);
      if (top.m_axi_data_arready && inside) read(data, top.m_axi_data_araddr, top.m_axi_data_arlen);
    } else if (read_offer.open) {
      blame("a read was taken back", read_offer.address);
    }
    if (top.m_axi_commands_arvalid) {
      const bool inside = check("a command", command_offer, top.m_axi_commands_arready, top.m_axi_commands_araddr,
                                top.m_axi_commands_arlen, top.m_axi_commands_arsize, top.m_axi_commands_arburst);
      if (top.m_axi_commands_arready && inside) read(commands, top.m_axi_commands_araddr, top.m_axi_commands_arlen);
    } else if (command_offer.open) {
      blame("a command was taken back", command_offer.address);
    }
    const bool word = top.m_axi_data_wvalid && top.m_axi_data_wready;
    if (word) take_word();
    if (top.m_axi_data_awvalid) {
      const bool inside = check("a write", write_offer, top.m_axi_data_awready, top.m_axi_data_awaddr,
                                top.m_axi_data_awlen, top.m_axi_data_awsize, top.m_axi_data_awburst);
      if (top.m_axi_data_awready && inside) write_bursts.push_back({top.m_axi_data_awaddr, top.m_axi_data_awlen + 1u});
    } else if (write_offer.open) {
      blame("a write was taken back", write_offer.address);
    }
    const bool data_taken = top.m_axi_data_rvalid && top.m_axi_data_rready;
    const bool command_taken = top.m_axi_commands_rvalid && top.m_axi_commands_rready;
    const bool answer_taken = top.m_axi_data_bvalid && top.m_axi_data_bready;
    top.aclk = 1, top.eval();
    if (data_taken) top.m_axi_data_rvalid = 0;
    if (command_taken) top.m_axi_commands_rvalid = 0;
    if (answer_taken) top.m_axi_data_bvalid = 0;
    cycle++;
  }

  template <typename Word, typename Data, typename Bit>
  void offer(std::deque<Beat>& queue, Word& valid, Data* value, Bit& last) {
    if (valid || queue.empty() || queue.front().due > cycle || !goes()) return;
    std::memcpy(value, queue.front().bytes, N);
    last = queue.front().last;
    valid = 1;
    queue.pop_front();
  }
};

}  // namespace

extern "C" {

void* board_open(uint8_t* memory, uint64_t bytes, const Setup* setup) {
  Board* board = new Board(memory, bytes, *setup);
  board->top.aresetn = 0;
  for (int k = 0; k < 4; k++) board->step();
  board->top.aresetn = 1;
  return board;
}

void board_close(void* handle) {
  Board* board = static_cast<Board*>(handle);
  board->top.final();
  delete board;
}

// What the core did first against the rules of AXI; empty: nothing.
const char* board_fault(void* handle) { return static_cast<Board*>(handle)->fault.c_str(); }

void board_pass(void* handle, uint64_t cycles) {
  for (uint64_t k = 0; k < cycles; k++) static_cast<Board*>(handle)->step();
}

// A register's value; address and data may take any time.
uint32_t board_read(void* handle, uint32_t offset) {
  Board& board = *static_cast<Board*>(handle);
  Vcore& top = board.top;
  top.s_axi_control_araddr = offset;
  top.s_axi_control_arvalid = 1;
  for (bool taken = false; !taken;) {
    top.aclk = 0, top.eval();
    taken = top.s_axi_control_arready;
    board.step();
  }
  top.s_axi_control_arvalid = 0;
  uint32_t value = 0;
  for (bool given = false; !given;) {
    top.s_axi_control_rready = board.goes();
    top.aclk = 0, top.eval();
    given = top.s_axi_control_rvalid && top.s_axi_control_rready;
    value = top.s_axi_control_rdata;
    board.step();
  }
  top.s_axi_control_rready = 0;
  return value;
}

void board_write(void* handle, uint32_t offset, uint32_t value) {
  Board& board = *static_cast<Board*>(handle);
  Vcore& top = board.top;
  top.s_axi_control_awaddr = offset;
  top.s_axi_control_wdata = value;
  bool address = true, word = true;
  while (address || word) {
    if (!top.s_axi_control_awvalid) top.s_axi_control_awvalid = address && board.goes();
    if (!top.s_axi_control_wvalid) top.s_axi_control_wvalid = word && board.goes();
    top.aclk = 0, top.eval();
    if (top.s_axi_control_awvalid && top.s_axi_control_awready) address = false;
    if (top.s_axi_control_wvalid && top.s_axi_control_wready) word = false;
    board.step();
    top.s_axi_control_awvalid &= address;
    top.s_axi_control_wvalid &= word;
  }
  for (bool given = false; !given;) {
    top.s_axi_control_bready = board.goes();
    top.aclk = 0, top.eval();
    given = top.s_axi_control_bvalid && top.s_axi_control_bready;
    board.step();
  }
  top.s_axi_control_bready = 0;
}
}
