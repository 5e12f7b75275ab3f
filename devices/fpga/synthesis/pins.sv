// The core on a chip for place and route: its ports have no pins, or there would be too few of them, but are the bits
// of two shift registers. Every path within the core stays as it is, and none goes through a pin.
module pins #(
    parameter int N = 8
) (
    input  logic clk,
    input  logic rst,
    input  logic shift_in,
    input  logic capture,
    output logic shift_out
);
  localparam int INPUTS = 512 + 8 * N + 5, OUTPUTS = 8 * N + 93;
  logic [INPUTS-1:0] inputs;
  logic [OUTPUTS-1:0] outputs, shifting;
  always_ff @(posedge clk) begin
    inputs <= {inputs[INPUTS-2:0], shift_in};
    shifting <= capture ? outputs : {shifting[OUTPUTS-2:0], 1'b0};
  end
  assign shift_out = shifting[OUTPUTS-1];
  logic command_ready, read_valid, data_ready, write_valid, write_last, idle;
  logic load_done, compute_begun, compute_done, store_done;
  logic [31:0] read_address, write_address;
  logic [15:0] read_words;
  logic [8*N-1:0] write_data;
  logic [2:0] activity;
  core #(.N(N)) inner (
      .clk, .rst, .command_valid(inputs[0]), .command_ready, .command(inputs[516:5]),
      .read_valid, .read_ready(inputs[1]), .read_address, .read_words, .data_valid(inputs[2]), .data_ready,
      .data(inputs[INPUTS-1:517]), .write_valid, .write_ready(inputs[3]), .write_address, .write_last, .write_data,
      .write_landed(inputs[4]), .idle, .activity, .load_done, .compute_begun, .compute_done, .store_done
  );
  always_ff @(posedge clk)
    outputs <= {
      command_ready, read_valid, data_ready, write_valid, write_last, idle, load_done, compute_begun, compute_done,
      store_done, read_address, write_address, read_words, write_data, activity
    };
endmodule
