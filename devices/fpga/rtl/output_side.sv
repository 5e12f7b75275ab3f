// From finished sums to int8 results in the buffers: N lanes of requantisation and residual addition, seventeen cycles
// from a sum to its result. The settings of a command hold until its last result is out; `busy` says so.
module output_side #(
    parameter int N = 8
) (
    input  logic            clk,
    input  logic            rst,
    // parameters of the N channels: four words of biases, four of multipliers, one of shifts
    input  logic            parameter_load,
    input  logic [     3:0] parameter_index,
    input  logic [ 8*N-1:0] parameter_word,
    input  logic            begins,           // the last pass of a command starts: these are its settings
    input  core_types::output_t settings,
    input  logic            complete,
    input  logic            ends,
    input  logic [32*N-1:0] totals,
    output logic            skip_read,
    output logic [    15:0] skip_address,
    input  logic [ 8*N-1:0] skip,             // two cycles later
    output logic            a_taken,          // the next cycle's write port of A is used here
    output logic            r_taken,
    output logic            write_a,
    output logic            write_r,
    output logic [    15:0] a_address,
    output logic [    15:0] r_address,
    output logic [ 8*N-1:0] results,
    output logic            busy,
    output logic            finished,
    output logic            idle
);
  localparam int SKIP = 6, RESULT = 16;
  /* verilator lint_off UNUSEDSIGNAL */ // bit 31 of a multiplier and the upper bits of a shift are zero
  logic [32*N-1:0] biases, multipliers;
  logic [8*N-1:0] shifts;
  core_types::output_t set;  // its addresses are counted up elsewhere
  /* verilator lint_on UNUSEDSIGNAL */
  logic [RESULT:1] valid, last;

  always_ff @(posedge clk) begin
    for (int k = 0; k < 4; k++) begin
      if (parameter_load && parameter_index == 4'(k)) biases[8*N*k+:8*N] <= parameter_word;
      if (parameter_load && parameter_index == 4'(k + 4)) multipliers[8*N*k+:8*N] <= parameter_word;
    end
    if (parameter_load && parameter_index == 4'd8) shifts <= parameter_word;
  end

  assign idle = !busy && !complete && !ends && last == '0 && !finished;
  always_ff @(posedge clk) begin
    valid <= rst ? '0 : {valid[RESULT-1:1], complete};
    last <= rst ? '0 : {last[RESULT-1:1], ends};
    finished <= !rst && last[RESULT];
    skip_read <= valid[SKIP-1] && set.residual;
    a_taken <= valid[RESULT-2] && set.to_a;
    r_taken <= valid[RESULT-2] && set.to_r;
    write_a <= a_taken;
    write_r <= r_taken;
    if (rst) busy <= 1'b0;
    else if (begins) busy <= 1'b1;
    else if (valid[RESULT] && last[RESULT]) busy <= 1'b0;
    if (begins) begin
      set <= settings;
      skip_address <= settings.skip_address;
      a_address <= settings.to_a_address;
      r_address <= settings.to_r_address;
    end else begin
      if (valid[SKIP]) skip_address <= skip_address + 16'd1;
      if (valid[RESULT]) begin
        a_address <= a_address + 16'd1;
        r_address <= r_address + 16'd1;
      end
    end
  end

  for (genvar c = 0; c < N; c++) begin : g_lane
    logic signed [7:0] value;
    requantiser_lane requantise (
        .clk, .sum(totals[32*c+:32]), .bias(biases[32*c+:32]), .multiplier(multipliers[32*c+:31]),
        .shift(shifts[8*c+:6]), .zero(set.zero_main), .value
    );
    addition_lane add (
        .clk, .main(value), .skip(skip[8*c+:8]), .zero_main(set.zero_main), .zero_skip(set.zero_skip),
        .zero_sum(set.zero_sum), .scale_main(set.scale_main), .scale_skip(set.scale_skip), .shift(set.sum_shift),
        .low(set.low), .high(set.high), .value(results[8*c+:8])
    );
  end
endmodule
