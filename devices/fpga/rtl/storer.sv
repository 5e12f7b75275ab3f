// Result buffer to memory. It reads R in the cycles that the residual addition leaves free.
module storer #(
    parameter int N = 8
) (
    input  logic           clk,
    input  logic           rst,
    input  logic           ready,          // the head is there and waits for nothing
    /* verilator lint_off UNUSEDSIGNAL */ // words 7 to 15 are empty, what to wait for is seen to
    input  core_types::transfer_t head,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic           pop,
    input  logic           r_taken,        // this cycle's read port of R belongs to the addition
    output logic [   15:0] read_address,
    input  logic [8*N-1:0] read_data,      // two cycles later
    output logic           write_valid,
    input  logic           write_ready,
    output logic [   31:0] write_address,
    output logic           write_last,     // of this store
    output logic [8*N-1:0] write_data,
    input  logic           write_landed,   // a store's last word is where a load would find it
    output logic           finished,
    output logic           idle
);
  localparam int DEPTH = 3;
  localparam logic [DEPTH:0] ROOM = (DEPTH + 1)'((1 << DEPTH) - 4);  // what is still on its way must fit too
  logic room, may_start, running, read, ends;
  logic [15:0] words, runs;
  logic [31:0] run_pitch, plane_pitch;
  logic [15:0] words_left, runs_left, planes_left;
  logic [31:0] memory, run_address, plane_address;
  logic [1:0] on_the_way, ends_later;
  logic [31:0] memory_later [0:1];
  logic [DEPTH:0] level;
  logic [3:0] flying;  // stores whose words are all sent and have not landed

  assign pop = may_start;
  assign read = running && !r_taken && room;
  assign ends = words_left == 16'd1 && runs_left == 16'd1 && planes_left == 16'd1;
  always_ff @(posedge clk) begin
    room <= level < ROOM;
    may_start <= ready && !running && !may_start;
    if (rst) begin
      may_start <= 1'b0;
      running <= 1'b0;
    end else if (may_start) begin
      running <= 1'b1;
      words <= head.words;
      runs <= head.runs;
      run_pitch <= head.run_pitch;
      plane_pitch <= head.plane_pitch;
      read_address <= head.address;
      words_left <= head.words;
      runs_left <= head.runs;
      planes_left <= head.planes;
      memory <= head.memory;
      run_address <= head.memory + head.run_pitch;
      plane_address <= head.memory + head.plane_pitch;
    end else if (read) begin
      read_address <= read_address + 16'd1;
      words_left <= words_left - 16'd1;
      memory <= memory + 32'(N);
      if (words_left == 16'd1) begin
        words_left <= words;
        runs_left <= runs_left - 16'd1;
        memory <= run_address;
        run_address <= run_address + run_pitch;
        if (runs_left == 16'd1) begin
          runs_left <= runs;
          planes_left <= planes_left - 16'd1;
          memory <= plane_address;
          run_address <= plane_address + run_pitch;
          plane_address <= plane_address + plane_pitch;
        end
      end
      if (ends) running <= 1'b0;
    end
  end
  always_ff @(posedge clk) begin
    on_the_way <= rst ? 2'b0 : {on_the_way[0], read};
    ends_later <= {ends_later[0], ends};
    memory_later[0] <= memory;
    memory_later[1] <= memory_later[0];
    finished <= !rst && write_landed;
    if (rst) flying <= '0;
    else flying <= flying + 4'(write_valid && write_ready && write_last) - 4'(write_landed);
  end
  fifo #(.WIDTH(8*N + 33), .LOG2(DEPTH)) leaving (
      .clk, .rst, .push(on_the_way[1]), .tail({ends_later[1], memory_later[1], read_data}),
      .pop(write_valid && write_ready), .head({write_last, write_address, write_data}), .level
  );
  assign write_valid = level != '0;
  assign idle = !may_start && !running && on_the_way == 2'b0 && level == '0 && flying == '0 && !finished;
endmodule
