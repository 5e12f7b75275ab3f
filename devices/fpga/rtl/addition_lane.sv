// One channel's residual addition and activation, eight cycles long:
//   value = zero_sum + round(((main - zero_main) * scale_main + (skip - zero_skip) * scale_skip) / 2**(shift + 1))
// held in [low, high], halves rounded up. Without an addition scale_skip is 0 and scale_main 2**(shift + 1).
module addition_lane (
    input  logic               clk,
    input  logic signed [ 7:0] main,
    input  logic signed [ 7:0] skip,
    input  logic signed [ 7:0] zero_main,
    input  logic signed [ 7:0] zero_skip,
    input  logic signed [ 7:0] zero_sum,
    input  logic        [15:0] scale_main,
    input  logic        [15:0] scale_skip,
    input  logic        [ 4:0] shift,
    input  logic signed [ 7:0] low,
    input  logic signed [ 7:0] high,
    output logic signed [ 7:0] value
);
  logic signed [8:0] main_part, skip_part;
  logic signed [16:0] times_main, times_skip;
  logic signed [25:0] main_product, skip_product;
  logic signed [26:0] sum, coarse, shifted;
  logic signed [10:0] rounded, moved;
  assign times_main = {1'b0, scale_main};
  assign times_skip = {1'b0, scale_skip};
  always_ff @(posedge clk) begin
    main_part <= 9'(main) - 9'(zero_main);
    skip_part <= 9'(skip) - 9'(zero_skip);
    main_product <= 26'(main_part * times_main);
    skip_product <= 26'(skip_part * times_skip);
    sum <= 27'(main_product) + 27'(skip_product);
    coarse <= sum >>> {shift[4:3], 3'b000};
    shifted <= coarse >>> shift[2:0];
    if (&shifted[26:10] || ~|shifted[26:10]) rounded <= 11'($signed(shifted[10:1])) + 11'(shifted[0]);
    else rounded <= shifted[26] ? -11'sd511 : 11'sd511;
    moved <= rounded + 11'(zero_sum);
    value <= moved > 11'(high) ? high : moved < 11'(low) ? low : moved[7:0];
  end
endmodule
