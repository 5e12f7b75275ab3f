// A multiplier with registers on both sides of its own: multipliers lie in few rows of a chip, and the ways to them and
// from them are long. The product comes three cycles after its factors.
module multiplier (
    input  logic               clk,
    input  logic signed [ 7:0] a,
    input  logic signed [ 7:0] b,
    output logic signed [15:0] product
);
  logic signed [7:0] a_held, b_held;
  logic signed [15:0] product_near;
  always_ff @(posedge clk) begin
    a_held <= a;
    b_held <= b;
    product_near <= a_held * b_held;
    product <= product_near;
  end
endmodule
