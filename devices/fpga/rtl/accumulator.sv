// int32 sums of up to 2**LOG2 pixels, N channels each. A vector of sums comes in every cycle; the old value is read
// two cycles before and the new one written one cycle after, so the same pixel may come again after four cycles.
module accumulator #(
    parameter int N = 8,
    parameter int WIDTH = 19,
    parameter int LOG2 = 10
) (
    input  logic               clk,
    input  core_types::token_t token,         // of the sums two cycles from now
    input  logic [   LOG2-1:0] address,
    input  logic [WIDTH*N-1:0] sums,
    output logic               complete,      // `totals` is a finished sum
    output logic               ends,          // the command's last vector has passed
    output logic [   32*N-1:0] totals
);
  /* verilator lint_off UNUSEDSIGNAL */ // a swap matters to the array only
  core_types::token_t token1, token2;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [LOG2-1:0] address1, address2, address3;
  logic write;
  logic [32*N-1:0] earlier;
  ram #(.WIDTH(32*N), .LOG2(LOG2)) partial (
      .clk, .write, .write_address(address3), .write_data(totals), .read_address(address), .read_data(earlier)
  );
  always_ff @(posedge clk) begin
    token1 <= token;
    token2 <= token1;
    address1 <= address;
    address2 <= address1;
    address3 <= address2;
    write <= token2.valid;
    complete <= token2.valid && token2.last;
    ends <= token2.valid && token2.ends;
  end
  for (genvar c = 0; c < N; c++) begin : g_lane
    logic signed [31:0] old, sum;
    assign old = earlier[32*c+:32];
    assign sum = 32'($signed(sums[WIDTH*c+:WIDTH]));
    always_ff @(posedge clk) begin
      if (token2.first) totals[32*c+:32] <= sum;
      else if (token2.maximum) totals[32*c+:32] <= sum > old ? sum : old;
      else totals[32*c+:32] <= sum + old;
    end
  end
endmodule
