// Memory to buffers. One half asks the memory, the other receives: the latency is paid once, not once a command.
// A load is planes x runs x words: a run is contiguous in memory, the buffer is filled from `address` upward.
module loader #(
    parameter int N = 8
) (
    input  logic           clk,
    input  logic           rst,
    input  logic           ready,         // the head is there and waits for nothing
    /* verilator lint_off UNUSEDSIGNAL */ // words 7 to 15 are empty, what to wait for is seen to
    input  core_types::transfer_t head,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic           pop,
    output logic           read_valid,
    input  logic           read_ready,
    output logic [   31:0] read_address,
    output logic [   15:0] read_words,
    input  logic           data_valid,
    output logic           data_ready,
    input  logic [8*N-1:0] data,
    input  logic           a_taken,       // the next cycle's write port of A belongs to a result
    input  logic           r_taken,
    output logic           write_a,
    output logic           write_r,
    output logic           write_w,
    output logic [   15:0] write_address,
    output logic [8*N-1:0] write_data,
    output logic           finished,
    output logic           idle
);
  // ---- asking ----
  logic may_start, asking;
  logic [15:0] runs_left, planes_left;
  logic [15:0] words_asked, runs_asked;
  logic [31:0] plane_address, run_pitch, plane_pitch;
  logic [3:0] inflight_level;
  assign pop = may_start;
  assign read_valid = asking;
  assign read_words = words_asked;
  always_ff @(posedge clk) begin
    may_start <= ready && !asking && !may_start && !inflight_level[3];
    if (rst) begin
      may_start <= 1'b0;
      asking <= 1'b0;
    end else if (may_start) begin
      asking <= 1'b1;
      words_asked <= head.words;
      runs_asked <= head.runs;
      run_pitch <= head.run_pitch;
      plane_pitch <= head.plane_pitch;
      runs_left <= head.runs;
      planes_left <= head.planes;
      read_address <= head.memory;
      plane_address <= head.memory + head.plane_pitch;
    end else if (asking && read_ready) begin
      runs_left <= runs_left - 16'd1;
      read_address <= read_address + run_pitch;
      if (runs_left == 16'd1) begin
        runs_left <= runs_asked;
        planes_left <= planes_left - 16'd1;
        read_address <= plane_address;
        plane_address <= plane_address + plane_pitch;
        if (planes_left == 16'd1) asking <= 1'b0;
      end
    end
  end

  // ---- receiving ----
  logic receiving, data_pop, entry_pop;
  logic [1:0] where, entry_where;
  logic [15:0] words_left, words, got_runs_left, runs, got_planes_left;
  logic [15:0] entry_address, entry_words, entry_runs, entry_planes;
  logic [3:0] data_level;
  logic [8*N-1:0] data_head;
  fifo #(.WIDTH(66), .LOG2(3)) inflight (
      .clk, .rst, .push(may_start), .pop(entry_pop), .level(inflight_level),
      .tail({head.where, head.address, head.words, head.runs, head.planes}),
      .head({entry_where, entry_address, entry_words, entry_runs, entry_planes})
  );
  fifo #(.WIDTH(8*N), .LOG2(3)) arrived (
      .clk, .rst, .push(data_valid && data_ready), .tail(data), .pop(data_pop), .head(data_head), .level(data_level)
  );
  assign data_ready = !data_level[3];
  assign entry_pop = !receiving && inflight_level != '0;
  assign data_pop = receiving && data_level != '0 && !(where == core_types::BUFFER_A && a_taken)
      && !(where == core_types::BUFFER_R && r_taken);
  assign idle = !asking && !may_start && !receiving && inflight_level == '0 && !finished;
  logic [15:0] next_address;
  always_ff @(posedge clk) begin
    write_a <= data_pop && where == core_types::BUFFER_A;
    write_r <= data_pop && where == core_types::BUFFER_R;
    write_w <= data_pop && where == core_types::BUFFER_W;
    write_data <= data_head;
    write_address <= next_address;
    finished <= 1'b0;
    if (rst) receiving <= 1'b0;
    else if (entry_pop) begin
      receiving <= 1'b1;
      where <= entry_where;
      next_address <= entry_address;
      words <= entry_words;
      words_left <= entry_words;
      runs <= entry_runs;
      got_runs_left <= entry_runs;
      got_planes_left <= entry_planes;
    end else if (data_pop) begin
      next_address <= next_address + 16'd1;
      words_left <= words_left - 16'd1;
      if (words_left == 16'd1) begin
        words_left <= words;
        got_runs_left <= got_runs_left - 16'd1;
        if (got_runs_left == 16'd1) begin
          got_runs_left <= runs;
          got_planes_left <= got_planes_left - 16'd1;
          if (got_planes_left == 16'd1) begin
            receiving <= 1'b0;
            finished <= 1'b1;
          end
        end
      end
    end
  end
endmodule
