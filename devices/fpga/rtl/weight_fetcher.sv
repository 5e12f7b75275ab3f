// Takes compute commands in order when what they wait for is done, and keeps the array's waiting weights filled one
// pass ahead. The words of a command lie in W in the order they are needed: the weights of every pass, then the
// parameters of the output side if the command finishes its sums.
module weight_fetcher #(
    parameter int N = 8
) (
    input  logic                 clk,
    input  logic                 rst,
    input  logic                 ready,             // the head is there and waits for nothing
    /* verilator lint_off UNUSEDSIGNAL */ // most of a command is for the issuer
    input  core_types::compute_t head,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                 issuer_free,
    output logic                 take,              // the issuer takes the head of the queue too
    input  logic                 output_busy,
    input  logic                 pass_started,      // the waiting weights are spoken for
    input  logic                 last_started,      // and the parameters
    output logic                 weights_soon,      // in the next cycle a pass's weights wait
    output logic                 parameters_ready,
    output logic [         15:0] read_address,
    output logic                 weights_load,      // what was read two cycles ago is a row of weights
    output logic                 weights_diagonal,
    output logic [$clog2(N)-1:0] weights_row,
    output logic                 parameter_load,    // or a word of parameters
    output logic [          3:0] parameter_index,
    output logic                 idle
);
  typedef enum logic [1:0] {IDLE, WEIGHTS, PARAMETERS} state_t;
  localparam logic [3:0] LAST_PARAMETER = 4'd8;
  localparam int L = $clog2(N);
  state_t state;
  logic [15:0] passes_left;
  logic diagonal, last, reading, reading_parameters, weights_ready, row_ends;
  logic [L-1:0] row;
  logic [3:0] index;
  // the read's way through the memory, two cycles
  logic [1:0] row_valid, parameter_valid;
  logic [L-1:0] row_later [0:1];
  logic [3:0] index_later [0:1];
  logic [1:0] diagonal_later;

  assign reading = state == WEIGHTS && (!weights_ready || row != '0);
  assign row_ends = reading && (diagonal || row == L'(N - 1));
  assign weights_soon = weights_ready || row_ends;
  assign reading_parameters = state == PARAMETERS && (index != '0 || !(output_busy || parameters_ready));
  assign idle = state == IDLE && !take && row_valid == '0 && parameter_valid == '0;
  always_ff @(posedge clk) begin
    take <= ready && state == IDLE && !take && issuer_free;
    if (pass_started) weights_ready <= 1'b0;
    if (last_started) parameters_ready <= 1'b0;
    if (rst) begin
      take <= 1'b0;
      state <= IDLE;
      weights_ready <= 1'b0;
      parameters_ready <= 1'b0;
      row <= '0;
      index <= '0;
    end else if (take) begin
      state <= WEIGHTS;
      read_address <= head.w_address;
      passes_left <= head.passes;
      diagonal <= head.diagonal;
      last <= head.last;
    end else if (reading) begin
      read_address <= read_address + 16'd1;
      row <= diagonal ? '0 : row + 1'b1;
      if (row_ends) begin
        // the activations take as long to the array as the last row does
        weights_ready <= 1'b1;
        passes_left <= passes_left - 16'd1;
        if (passes_left == 16'd1) state <= last ? PARAMETERS : IDLE;
      end
    end else if (reading_parameters) begin
      read_address <= read_address + 16'd1;
      index <= index + 4'd1;
      if (index == LAST_PARAMETER) begin
        index <= '0;
        parameters_ready <= 1'b1;
        state <= IDLE;
      end
    end
  end
  always_ff @(posedge clk) begin
    row_valid <= rst ? 2'b0 : {row_valid[0], reading};
    parameter_valid <= rst ? 2'b0 : {parameter_valid[0], reading_parameters};
    diagonal_later <= {diagonal_later[0], diagonal};
    row_later[0] <= row;
    row_later[1] <= row_later[0];
    index_later[0] <= index;
    index_later[1] <= index_later[0];
  end
  assign weights_load = row_valid[1];
  assign weights_diagonal = diagonal_later[1];
  assign weights_row = row_later[1];
  assign parameter_load = parameter_valid[1];
  assign parameter_index = index_later[1];
endmodule
